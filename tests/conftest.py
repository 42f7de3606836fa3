"""That this file is here puts this folder on the import path, also for the tests in folders below it."""
