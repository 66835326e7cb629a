"""The air around the box: Bluetooth devices played by bumble, and the controllers by which the box hears them.

    air.py PORT[,PORT...] 'JSON list of devices'

Each of the box's controllers is an HCI transport at a TCP PORT of the loopback interface (the guest's kernel gets it as a vhci controller,
vhci.py); the devices are on the same simulated link. So of two linked controllers only one costs the guest's kernel anything, and
there may be many devices. Read controller.py for the link, devices.py for who is on it.

A device is `{"kind", "name", "address"}` and
  uart    the Nordic UART service; its packets go to a program at the datagram socket `socket` (see the simulated device's --packets).
          `mtu`: the largest ATT MTU that it takes. `jumble`: notifications leave out of order, as over several EATT channels.
  plug    a foreign device: environmental sensing (0x181A) with a temperature that notifies, and a service of its own.
          Reading wants a pairing where it is `locked`, with a passkey where it shows `passkey` or has `keys` to type one on.
  sensor  broadcasts what it is told as BTHome (0xFCD2), and takes no connection.

Lines of JSON on standard input: {"do": "hide" | "show", "device": NAME}, {"do": "say", "device", "data": hex} (with "key": hex
and "counter": sealed), {"do": "notify", "device", "uuid", "data": hex}, {"do": "shift", "device"} (other handles), {"do": "type", "device",
"digits"}, {"do": "strength", "dbm": 127}, {"do": "unplugged", "adapter": 0} (the box's end was pulled). Lines on standard output: {"event":
"ready"}, {"event": "connected" | "gone" | "subscribed" | "written" | "passkey" | "wanted", "device", ...}. Ends with its input.
"""

import asyncio
import json
import os
import sys
from typing import Any

from bumble.transport import open_transport
from controller import BoxController, Link
from devices import KINDS, sealed, tell

# Of the box's first adapter; the next ones count on.
ADDRESS = "00:1B:DC:00:00:0{}"


async def obey(order: dict[str, Any], boxes: list[BoxController], peers: dict[str, Any]) -> None:
    peer = peers.get(order.get("device", ""))
    match order["do"]:
        case "hide":
            await peer.hide()
        case "show":
            await peer.show()
        case "shift":
            await peer.shift()
        case "say":
            peer.data = bytes.fromhex(order["data"])
            if "key" in order:
                peer.data = sealed(peer.spec["address"], bytes.fromhex(order["key"]), order["counter"], peer.data)
            await peer.advertise()
        case "notify":
            await peer.notify(order["uuid"], bytes.fromhex(order["data"]))
        case "type":
            await peer.keys.typed.put(int(order["digits"]))
        case "unplugged":
            boxes[order.get("adapter", 0)].go_silent()
        case "strength":
            for box in boxes:
                box.strength_dbm = order["dbm"]


async def main(ports: list[str], specs: list[dict[str, Any]]) -> None:
    link, boxes = Link(), []
    for number, port in enumerate(ports):
        transport = await open_transport(f"tcp-server:127.0.0.1:{port}")
        address = ADDRESS.format(number + 1)
        boxes.append(BoxController(f"box{number}", transport.source, transport.sink, link, address))
    peers = {spec["name"]: KINDS[spec["kind"]](link, spec) for spec in specs}
    for peer in peers.values():
        await peer.start()
    tell("ready")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        await obey(order, boxes, peers)
        tell("obeyed", do=order["do"])
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].split(","), json.loads(sys.argv[2])))
