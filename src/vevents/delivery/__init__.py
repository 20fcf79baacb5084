"""From the log to the API.

client      one function per endpoint, and what its answers mean
sender      makes the requests: within limits, repeated when that may help
flusher     one pass: images first, then batches, then acknowledgements
setup       a client and a flusher from the settings
"""

from __future__ import annotations
