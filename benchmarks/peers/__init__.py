"""The networks that other libraries run in their examples, on those libraries and on heinfer, in one run.

Peers run in environments of their own, so this package and the scripts in it that they run (`*_peer.py`, `channel.py`)
import nothing of heinfer.
"""
