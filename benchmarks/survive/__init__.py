"""survive: restarts and replacements of a service under calls. Nothing is imitated: processes, signals, a proxy."""
