"""Cross-validated fine-tuning on labelled clips: the experiment of tables III and IV of the paper.

voc2vec finetune --config=finetune:donateacry --config.model=SRC --workdir=runs/donateacry
voc2vec finetune --config=finetune:folder --config.data=PATH --config.model=SRC --workdir=RUN
voc2vec finetune --config=finetune:tasks --config.systems=paper --workdir=runs/paper
voc2vec finetune --config=finetune:cnvve,vivae --config.systems=voc2vec,hubert-ls --workdir=RUN

SRC is a system of the paper (voc2vec-ls, hubert-ls, opensmile, ...), a Hub id, a folder, a checkpoint file or a run
folder of pre-training. PATH holds your own clips: a folder of class folders, or a manifest. A rerun skips what is done.

Where a value comes from:  [P] the paper, paragraph on fine-tuning  [S] the official fine-tuning script
                           [T] a default of transformers that the script leaves alone  [-] neither says: our choice
"""

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.finetuning import tasks


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: data sets separated by commas; or `folder`, your own clips; or `tasks`, the six of the paper."""
    if not arg:
        raise errors.InputError(
            "name the data set: --config=finetune:donateacry, say, finetune:folder (your clips) or finetune:tasks"
        )
    c = ml_collections.ConfigDict()
    # From the argument; several make a grid with the systems
    c.datasets = tuple(tasks.PAPER_TASKS if arg == "tasks" else filter(None, arg.split(",")))

    # What the two protocols do:
    #                 strict [-]                               paper [S], which its numbers need
    #   folds         stratified, no speaker on both sides     shuffled with seed 42, neither
    #   best epoch    chosen on clips held out of training     chosen on the test clips themselves
    #   padding       invisible to the model                   up to max_seconds, taken for audio
    #   batches       clips of all lengths in each             shuffled
    #   stopping      patience counts behind the warm-up       patience counts from the first epoch
    #   masks         short clips get shorter spans            at least two spans of ten frames in any clip
    #   scores        recall and F1 over classes with clips    and over those that are only predicted
    c.protocol = "strict"  # "strict": scores that mean something | "paper": the numbers of the paper
    c.folds = 10  # [P] as many models, each tested on its share of the clips
    c.validation_share = 0.1  # [-] of the clips that are not tested; strict only
    c.max_seconds = 7.0  # [S] of each clip, from its start

    c.epochs = 50  # [P] of each fold, at most
    c.patience = 5  # [P] epochs without a better macro F1 [S]
    c.batch_clips = 16  # [P] clips of an update
    c.peak_lr = 1e-4  # [P] learning rate after the warm-up
    c.warmup_steps = 500  # [P] updates, linear from 0, then linear to 0 at the last step of `epochs`
    # "published" [S]: as stated above | "after_warmup" [-]: the warm-up is at most a tenth of a fold's updates, and
    # patience counts only behind it | "auto": the latter in strict, else most folds of a small set end before the peak
    c.stopping = "auto"
    c.weight_decay = 0.0  # [T] AdamW with betas 0.9 and 0.999, eps 1e-8
    c.clip_norm = 1.0  # [T] of the gradient; 0: no clipping
    c.class_weights = True  # [S] a clip's loss times n / (classes * clips of its class)
    c.sampling = "all"  # [S] every clip once an epoch; "balanced" [-]: as many, classes evenly, without class weights
    c.seed = 0  # [-] of heads, batches, masks and dropout

    # "none" [S] | "stem": not the convolutions, as transformers' freeze_feature_encoder | "encoder": the head alone
    c.freeze = "none"
    c.freeze_updates = 0  # [-] first updates that train the head alone (fairseq's freeze_finetune_updates)
    c.layer_decay = 1.0  # [-] a block's rate over that of the block above it, as in ELECTRA and BEiT; head: 1
    c.lora_rank = 0  # [-] LoRA (Hu et al. 2021) in place of the encoder's own weights; 0: none
    c.lora_alpha = 16.0  # [-] LoRA's output times this over its rank
    c.lora_targets = "query,value"  # [-] that get LoRA: any of query, key, value, out, mlp_in, mlp_out

    c.dropouts = True  # [S] those of the checkpoint's config.json, LayerDrop too
    # SpecAugment over time; the checkpoint's values stand in its config.json, and the others are transformers'
    c.mask_share = -1.0  # of frames that start a masked span; under 0: the checkpoint's [S], else 0.05 [T]; 0: none
    c.mask_frames = -1  # of a span; under 0: the checkpoint's [S], else 10 [T]
    c.min_masks = -1  # spans at least; under 0: the checkpoint's [S], else 2 [T]
    # "published" [T]: as stated above, whatever a clip's length | "scaled" [-]: clips too short for two spans within
    # the share get shorter ones | "auto": the latter in strict, else two spans hide 40 % of a clip of a second
    c.masks = "auto"
    # Changes of training clips; 0: none
    c.augment_speed = 0.0  # [-] 0.1: factors of 0.9 to 1.1, the pitch too
    c.augment_shift = 0.0  # [-] at most this share of the clip's length, to either side
    c.augment_noise = 0.0  # [-] share of the clips that get white or pink noise
    c.noise_snr = (10.0, 40.0)  # [-] dB of the clip over the noise, from and to
    c.augment_gain = 0.0  # [-] dB, up or down
    c.mixup = 0.0  # [-] alpha of lambda ~ Beta(alpha, alpha) (Zhang et al. 2018)
    c.head_width = 256  # [T] of the head: linear, pooling over frames, linear
    c.pooling = "mean"  # [T] over frames; "attention" [-]: weights by a learned query, from the mean (Safari 2020)
    c.hidden_width = 256  # [-] of openSMILE's and emotion2vec's network: linear, ReLU, linear [P]
    c.scale = "standard"  # [-] their features, by the training clips; "none": as the paper's scores suggest
    return finetuning_recipe.complete(c)
