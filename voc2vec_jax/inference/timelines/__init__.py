"""What is made of the timelines of an evaluation: events, label files of other programs, pictures and pages.

    events        where a class is heard: threshold, hysteresis, least duration, gaps that are bridged
    listening     one pass over a recording: its spectrogram and the sound that a page carries
    picture       spectrogram, probabilities and events as one figure
    page          the page with a player
    drawing       all of it for the recordings of an output folder

w = windows, v = classes, e = edges (w + 1).
"""
