"""LoLa, FFConv and Falcon as published: planners beside the search, to compare with (docs/policies.md)."""
