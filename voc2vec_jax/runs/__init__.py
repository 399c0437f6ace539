"""What every program needs: command line, configuration, run folder, checkpoints, logs, processes and devices."""
