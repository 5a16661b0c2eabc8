"""Virtual lesion trials: the same lesions with one attribute varied, in many hosts; and what a model misses of them."""
