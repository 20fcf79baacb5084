"""From the log to the API.

tls         whom to trust, and the device's own certificate
client      one function per endpoint, and what its answers mean
sender      makes the requests: within limits, repeated when that may help
pause       the switch that stops every delivery
schedule    when delivery may run: windows and the switch
flusher     one pass: images first, then batches, then acknowledgements
lookback    whether what is delivered late will still be shown
setup       a client and a flusher from the settings
network     news of links, addresses and routes from the kernel
sdnotify    what a service tells systemd
planner     when the agent makes its next pass
agent       delivers for as long as it runs
"""

from __future__ import annotations
