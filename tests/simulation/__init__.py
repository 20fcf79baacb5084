"""Simulated months of devices: one seed drives log, flusher, clock, power, network and server.

    world     true time, what is due in it, chance, and the record of what happened
    clock     the device's clocks, right or wrong
    camera    what the device sees: events and frames
    network   the way to the server, and what happens to requests on it
    server    the emulator, in this process, with its own bad days
    device    the log, the flusher, and whatever ends a boot
    oracle    what was appended, and whether both sides agree with it
    run       one seed from the first day to the last

`python -m simulation` (or `./dev simulate`) runs seeds; everything that happens follows from them.
"""
