"""Every data set of the voc2vec paper, and the two that need no publisher.

`paper_hours` and `paper_samples` are those of the paper's tables I and II.
"""

from voc2vec_jax.datasets import donateacry, folder, human_voice, nonverbal_vocalization, sources, synthetic

_PRETRAINING = (
    sources.Source(
        name="audioset_vocalization",
        title="AudioSet, human vocalizations",
        url="https://research.google.com/audioset/download.html",
        licence="labels CC BY 4.0, the clips belong to their YouTube authors",
        holds="the segment csv files and a folder of the 10 s clips",
        paper_hours=36.94,
        paper_samples=13439,
    ),
    sources.Source(
        name="freesound_babies",
        title="FreeSound babies",
        url="https://freesound.org",
        licence="Creative Commons, per clip",
        holds="the clips that you chose, in any folders (no archive was published)",
        paper_hours=23.42,
        paper_samples=1450,
    ),
    sources.Source(
        name="human_voice",
        title="Human Voice Dataset",
        url="https://github.com/vocobox/human-voice-dataset",
        licence="MIT",
        holds="data/voices/<speaker>/{notes,voyels}/exports/{mono,stereo}/*.wav",
        paper_hours=0.06,
        paper_samples=179,
        list_recordings=human_voice.list_recordings,
    ),
    sources.Source(
        name="nnime",
        title="NNIME",
        url="https://nnime.ee.nthu.edu.tw",
        licence="academic use, under a signed agreement",
        holds="the wav files, in any folders",
        paper_hours=3.55,
        paper_samples=5596,
    ),
    sources.Source(
        name="nonspeech7k",
        title="Nonspeech7k",
        url="https://zenodo.org/records/6967442",
        licence="CC BY 4.0 by its record, CC BY-NC-SA 4.0 by its text",
        holds="train/*.wav, test/*.wav and the two metadata csv files",
        paper_hours=6.72,
        paper_samples=6983,
    ),
    sources.Source(
        name="recanvo",
        title="ReCANVo",
        url="https://zenodo.org/records/5786860",
        licence="as its record states",
        holds="*.wav in one folder with dataset_file_directory.csv",
        paper_hours=2.46,
        paper_samples=7077,
    ),
    sources.Source(
        name="singing_database",
        title="Singing Voice Dataset",
        url="http://isophonics.net/SingingVoiceDataset",
        licence="as its page states",
        holds="monophonic/{chinese,western}/ and polyphonic/{chinese,western}/ with the wav files",
        paper_hours=3.97,
        paper_samples=113,
    ),
    sources.Source(
        name="tut_babies",
        title="TUT Rare Sound Events 2017, baby cries",
        url="https://zenodo.org/records/401395",
        licence="EULA.pdf of the record, source events Creative Commons per file",
        holds="data/mixture_data/{devtrain,devtest}/<hash>/ and data/source_data/",
        paper_hours=13.17,
        paper_samples=1540,
    ),
    sources.Source(
        name="vocalsketch",
        title="VocalSketch",
        url="https://zenodo.org/records/1251982",
        licence="as its record states",
        holds="vocal_imitations/{included,excluded}/ and vocal_imitations_set2/ with the wav files",
        paper_hours=10.53,
        paper_samples=10705,
    ),
    sources.Source(
        name="vocalsound",
        title="VocalSound",
        url="https://github.com/YuanGongND/vocalsound",
        licence="CC BY-SA 4.0",
        holds="audio_16k/*.wav or audio_44k/*.wav",
        paper_hours=24.37,
        paper_samples=20985,
    ),
)

_TASKS = (
    sources.Source(
        name="asvp_esd",
        title="ASVP-ESD",
        url="https://zenodo.org/records/7132783",
        licence="as its record states",
        holds="Audio/actor_<number>/*.wav",
        paper_hours=15.07,
        paper_samples=12625,
    ),
    sources.Source(
        name="asvp_esd_babies",
        title="ASVP-ESD, babies",
        url="https://zenodo.org/records/7132783",
        licence="as its record states",
        holds="Bonus/actor_<number>/*.wav",
        paper_hours=2.91,
        paper_samples=1339,
    ),
    sources.Source(
        name="cnvve",
        title="CNVVE",
        url="https://doi.org/10.18419/darus-3898",
        licence="as its record states",
        holds="{confirm,decline,continuous,hush,psst,ahem}/*.wav",
        paper_hours=0.2,
        paper_samples=921,
    ),
    sources.Source(
        name="donateacry",
        title="Donate-a-Cry, cleaned",
        url="https://github.com/gveres/donateacry-corpus",
        licence="ODbL 1.0, contents DbCL 1.0",
        holds="donateacry_corpus_cleaned_and_updated_data/{belly_pain,burping,discomfort,hungry,tired}/*.wav",
        paper_hours=0.88,
        paper_samples=457,
        list_recordings=donateacry.list_recordings,
    ),
    sources.Source(
        name="nonverbal_vocalization",
        title="NonVerbal Vocalization, public sample",
        url="https://github.com/deeplyinc/Nonverbal-Vocalization-Dataset",
        licence="CC BY-NC-ND 4.0",
        holds="dataset/<class>/<speaker>_<class number>_*.wav",
        paper_hours=0.6,
        paper_samples=800,
        list_recordings=nonverbal_vocalization.list_recordings,
    ),
    sources.Source(
        name="vivae",
        title="VIVAE",
        url="https://zenodo.org/records/4066235",
        licence="CC BY-NC 4.0",
        holds="full_set/S<speaker>_<emotion>_<intensity>_<number>.wav",
        paper_hours=0.27,
        paper_samples=1085,
    ),
)

_OWN = (
    sources.Source(
        name="folder",
        title="A folder of audio",
        url="your own disk",
        licence="your own",
        holds="wav, flac, ogg or mp3 files in any folders, or is a csv or tsv manifest of them",
        list_recordings=folder.list_recordings,
    ),
    sources.Source(
        name="synthetic",
        title="Synthetic vocalizations",
        url="this package",
        licence="that of this package",
        holds="nothing: it is made on the spot",
        list_recordings=synthetic.list_recordings,
    ),
)

PRETRAINING = tuple(source.name for source in _PRETRAINING)
TASKS = tuple(source.name for source in _TASKS)
CATALOG = {source.name: source for source in (*_PRETRAINING, *_TASKS, *_OWN)}
