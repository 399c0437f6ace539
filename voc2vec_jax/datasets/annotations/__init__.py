"""Labels of stretches of recordings, in the files of other programs: Audacity, Praat, RTTM and Raven.

text        what all of them share: a bounded text file, a segment, times
audacity textgrid rttm raven       one format each: `read` and `write`
formats     which format a file is in
label_lists the segments of label files, with the recordings that they belong to, as a list for training
"""
