"""Where records come from and where outputs go: log files, Kafka, checkpoints, the command line."""
