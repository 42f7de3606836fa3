"""Policies: who chooses the layouts of a plan, heinfer's search or a published method (docs/ffconv.md).

Nothing is imported here, so that wishes can name a policy and policies can take wishes.
"""
