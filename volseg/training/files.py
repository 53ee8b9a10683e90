"""Names of the files in a run folder, except its models."""

#: The resolved configuration, the checkpoint to resume from, and the split of the cases.
CONFIG_FILE, LAST_FILE, SPLITS_FILE, NOT_USED_FILE = "config.yaml", "last.pt", "splits.json", "not_used.csv"
#: A row per epoch, Dice per validation case and label, and the log.
HISTORY_FILE, VALIDATION_FILE, RUN_LOG_FILE = "history.csv", "validation.csv", "train.log"
#: Folder of prepared cases, removed at the end.
CACHE_FOLDER = "cache"
