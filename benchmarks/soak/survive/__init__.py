"""survive: restarts and replacements of a service under calls, behind a proxy."""
