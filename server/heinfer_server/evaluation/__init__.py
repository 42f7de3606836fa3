"""Circuits evaluated in worker processes: tasks, turns, jobs, progress and failure."""
