"""The files of a run folder, beside its models."""

#: Everything that was decided, the checkpoint for a resumption, and which cases were used for what.
CONFIG_FILE, LAST_FILE, SPLITS_FILE, NOT_USED_FILE = "config.yaml", "last.pt", "splits.json", "not_used.csv"
#: A row per epoch, Dice per validation case and label, and what happened when.
HISTORY_FILE, VALIDATION_FILE, RUN_LOG_FILE = "history.csv", "validation.csv", "train.log"
#: Prepared cases, removed at the end.
CACHE_FOLDER = "cache"
