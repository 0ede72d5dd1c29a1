"""What tells others of a run as it goes: event files, log lines, ranges, traces."""
