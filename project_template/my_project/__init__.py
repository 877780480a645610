"""What this team declares: forecasts, Python assets, jobs and schedules, in `defs`."""
