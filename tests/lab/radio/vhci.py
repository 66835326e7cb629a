"""Runs in the guest: a Bluetooth controller of its kernel (/dev/vhci), whose other end is an HCI transport at HOST PORT.

One packet goes with each read and write of /dev/vhci (Linux, drivers/bluetooth/hci_vhci.c); TCP keeps no borders, so packets are taken
apart by their headers (Bluetooth Core 5.4 Vol 4 Part A §2, Part E §5.4).
"""

import errno
import os
import socket
import struct
import sys
import threading

CREATE_PRIMARY = b"\xff\x00"
ACL, EVENT, ISO = b"\x02", b"\x04", b"\x05"


def packets(stream):
    """What comes from the controller, packet by packet."""
    while kind := stream.read(1):
        header = stream.read(2 if kind == EVENT else 4)
        if kind == EVENT:
            length = header[1]
        elif kind in (ACL, ISO):
            length = struct.unpack_from("<H", header, 2)[0] & (0xFFFF if kind == ACL else 0x3FFF)
        else:
            sys.exit(f"packets of kind {kind.hex()} are not known here")
        yield kind + header + stream.read(length)


def main(host, port):
    controller = socket.create_connection((host, port))
    controller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kernel = os.open("/dev/vhci", os.O_RDWR)
    os.write(kernel, CREATE_PRIMARY)
    os.read(kernel, 260)

    def down():
        while True:
            controller.sendall(os.read(kernel, 4096))

    threading.Thread(target=down, daemon=True).start()
    for packet in packets(controller.makefile("rb")):
        try:
            os.write(kernel, packet)
        except OSError as error:
            # The kernel has not opened it yet: what is heard then is heard by nobody.
            if error.errno != errno.ENXIO:
                raise
    # The controller is gone, and with this end of /dev/vhci the kernel's side of it, as when a dongle is pulled.


main(sys.argv[1], int(sys.argv[2]))
