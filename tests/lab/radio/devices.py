"""The air around the box: Bluetooth devices played by bumble, and the controller by which the box hears them.

    air.py PORT 'JSON list of devices'

The box's controller is an HCI transport at TCP PORT of the loopback interface (the guest's kernel gets it as a vhci controller, vhci.py); the
devices are on the same simulated link, each with an address and a host stack of its own. So of two linked controllers only one
costs the guest's kernel anything, and there may be many devices.

A device is `{"kind", "name", "address"}` and
  uart    the Nordic UART service; its packets go to a program at the datagram socket `socket` (see the simulated device's --packets).
          `mtu`: the largest ATT MTU that it takes. `jumble`: notifications leave out of order, as over several EATT channels.
  plug    a foreign device: environmental sensing (0x181A) with a temperature that notifies, and a service of its own.
          `locked`: reading wants a pairing with the passkey `passkey`.
  sensor  broadcasts what it is told as BTHome (0xFCD2), and takes no connection.

Lines of JSON on standard input: {"do": "hide" | "show", "device": NAME}, {"do": "say", "device", "data": hex} (with "key": hex
and "counter": sealed), {"do": "notify", "device",
"uuid", "data": hex}, {"do": "shift", "device"} (other handles), {"do": "strength", "dbm": 127}, {"do": "unplugged"} (the box's end was pulled). Lines on standard output: {"event":
"ready"}, {"event": "connected" | "gone" | "subscribed" | "written" | "passkey", "device", ...}. Ends with its input.
"""

import asyncio
import dataclasses
import json
import os
import socket
import sys
from typing import Any

from bumble.att import Attribute
from bumble.controller import Controller
from bumble.core import AdvertisingData
from bumble.device import AdvertisingType, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.gatt_server import Server
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport import open_transport
from bumble.transport.common import AsyncPipeSink
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

UART = "6E40000{}-B5A3-F393-E0A9-E50E24DCCA9E"
PLUG = "0000A00{}-0000-1000-8000-00805F9B34FB"
BTHOME = 0xFCD2
INTERVAL_MS = 100
# A notification that is overtaken waits this long for the next.
JUMBLE_S = 0.02


def tell(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


class Link(LocalLink):
    """bumble's, but what is sent on a connection comes from the address that it was made with: BlueZ takes another for each scan."""

    def send_acl_data(self, sender_controller: Any, destination_address: Any, transport: Any, data: bytes) -> None:
        connection = sender_controller.le_connections.get(destination_address)
        receiver = self.find_le_controller(destination_address)
        if connection and receiver:
            source = connection.self_address
            asyncio.get_running_loop().call_soon(lambda: receiver.on_link_acl_data(source, transport, data))


class Peer:
    """One device on the air."""

    def __init__(self, link: LocalLink, spec: dict[str, Any]):
        self.spec, self.name = spec, spec["name"]
        address = Address(spec["address"])
        controller = Controller(self.name, link=link)
        controller.random_address = address
        self.device = Device(name=self.name, address=address, host=Host(controller, AsyncPipeSink(controller)))
        self.connection: Any = None
        self.is_shown = True
        self.data = b""
        self.device.on("connection", self._on_connection)

    async def start(self) -> None:
        self._serve()
        if "mtu" in self.spec:
            self.device.gatt_server.max_mtu = self.spec["mtu"]
        await self.device.power_on()
        await self.advertise()

    def _serve(self) -> None:
        pass

    def _elements(self) -> list[tuple[int, bytes]]:
        return [(AdvertisingData.COMPLETE_LOCAL_NAME, self.name.encode())]

    async def advertise(self) -> None:
        await self.device.stop_advertising()
        if not self.is_shown:
            return
        self.device.advertising_data = bytes(AdvertisingData([(AdvertisingData.FLAGS, b"\x06"), *self._elements()]))
        kind = AdvertisingType.UNDIRECTED
        if self.spec["kind"] == "sensor":
            kind = AdvertisingType.UNDIRECTED_SCANNABLE
        await self.device.start_advertising(
            advertising_type=kind,
            auto_restart=True,
            advertising_interval_min=INTERVAL_MS,
            advertising_interval_max=INTERVAL_MS,
        )

    async def hide(self) -> None:
        self.is_shown = False
        await self.device.stop_advertising()
        if self.connection:
            await self.connection.disconnect()

    async def show(self) -> None:
        self.is_shown = True
        await self.advertise()

    async def shift(self) -> None:
        """Other handles: the services anew, behind another one."""
        self.device.gatt_server = Server(self.device)
        self.device.add_default_services()
        self.device.add_service(Service("180A", [_readable("2A24", b"shifted")]))
        self._serve()

    def _on_connection(self, connection: Any) -> None:
        self.connection = connection
        tell("connected", device=self.name)
        connection.on("disconnection", lambda reason: self._on_gone())

    def _on_gone(self) -> None:
        self.connection = None
        tell("gone", device=self.name)
        if self.is_shown:
            asyncio.get_running_loop().create_task(self.advertise())


def _readable(uuid: str, value: Any, permissions: Any = Attribute.READABLE) -> Characteristic:
    return Characteristic(uuid, Characteristic.Properties.READ, permissions, value)


class Uart(Peer, asyncio.DatagramProtocol):
    """Packets between the box and a program on this side. To it: `+` and the packet size, `=` and a packet, `-` at the end."""

    def __init__(self, link: LocalLink, spec: dict[str, Any]):
        super().__init__(link, spec)
        self.packets: asyncio.Queue[bytes] = asyncio.Queue(64)
        self.socket: Any = None

    async def start(self) -> None:
        path = self.spec["socket"]
        loop = asyncio.get_running_loop()
        self.socket, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=path, family=socket.AF_UNIX)
        loop.create_task(self._pump())
        await super().start()

    def _serve(self) -> None:
        properties = Characteristic.Properties
        write = CharacteristicValue(write=lambda _connection, value: self._to_program(b"=" + value))
        self.notify = Characteristic(UART.format(3), properties.NOTIFY, Attribute.READABLE)
        self.notify.on("subscription", self._on_subscription)
        taken = properties.WRITE | properties.WRITE_WITHOUT_RESPONSE
        self.device.add_service(
            Service(UART.format(1), [Characteristic(UART.format(2), taken, Attribute.WRITEABLE, write), self.notify])
        )

    def _on_subscription(self, bearer: Any, is_on: bool, _indicates: bool) -> None:
        if is_on:
            # The exchange of the MTU came before; three bytes of a notification are not its value.
            self._to_program(b"+" + (bearer.att_mtu - 3).to_bytes(2, "little"))
            tell("subscribed", device=self.name, mtu=bearer.att_mtu)

    def _on_gone(self) -> None:
        self._to_program(b"-")
        super()._on_gone()

    def _to_program(self, message: bytes) -> None:
        self.socket.sendto(message, self.spec["socket"] + ".device")

    def error_received(self, _error: Exception) -> None:
        """The program is not there (yet): then nobody hears the packet."""

    def datagram_received(self, packet: bytes, _address: Any) -> None:
        if not self.packets.full():
            self.packets.put_nowait(packet)

    async def _pump(self) -> None:
        while True:
            packets = [await self.packets.get()]
            if self.spec.get("jumble"):
                try:
                    packets.insert(0, await asyncio.wait_for(self.packets.get(), JUMBLE_S))
                except asyncio.TimeoutError:
                    pass
            for packet in packets:
                if self.connection:
                    try:
                        await self.device.notify_subscriber(self.connection, self.notify, packet)
                    except Exception as error:  # the connection may end meanwhile
                        tell("lost", device=self.name, error=str(error))


class Delegate(PairingDelegate):
    """Shows a passkey that is always the same."""

    def __init__(self, passkey: int, name: str):
        super().__init__(io_capability=PairingDelegate.DISPLAY_OUTPUT_ONLY)
        self.passkey, self.name = passkey, name

    async def generate_passkey(self) -> int:
        return self.passkey

    async def display_number(self, number: int, digits: int) -> None:
        tell("passkey", device=self.name, digits=f"{number:06}")


class Plug(Peer):
    """A foreign device with a temperature, a level, an action and a button."""

    def _serve(self) -> None:
        self.values = {"2A6E": (2506).to_bytes(2, "little"), "level": b"\x07"}
        properties, permissions = Characteristic.Properties, Attribute.READABLE
        if "passkey" in self.spec:
            permissions |= Attribute.READ_REQUIRES_AUTHENTICATION
            delegate = Delegate(self.spec["passkey"], self.name)
            self.device.pairing_config_factory = lambda _connection: PairingConfig(delegate=delegate)
        elif self.spec.get("locked"):
            permissions |= Attribute.READ_REQUIRES_ENCRYPTION
            delegate = PairingDelegate(io_capability=PairingDelegate.NO_OUTPUT_NO_INPUT)
            self.device.pairing_config_factory = lambda _connection: PairingConfig(mitm=False, delegate=delegate)
        read = lambda what: lambda _connection: self.values[what]  # noqa: E731
        self.notifying = {
            "2A6E": Characteristic(
                "2A6E", properties.READ | properties.NOTIFY, permissions, CharacteristicValue(read=read("2A6E"))
            ),
            "A003": Characteristic(PLUG.format(3), properties.NOTIFY, Attribute.READABLE),
        }
        level = CharacteristicValue(read=read("level"), write=lambda _c, value: self._written("level", value))
        blink = CharacteristicValue(write=lambda _c, value: self._written("blink", value))
        self.device.add_service(Service("181A", [self.notifying["2A6E"]]))
        own = [
            Characteristic(
                PLUG.format(1),
                properties.READ | properties.WRITE,
                Attribute.READABLE | Attribute.WRITEABLE,
                level,
            ),
            Characteristic(PLUG.format(2), properties.WRITE, Attribute.WRITEABLE, blink),
            self.notifying["A003"],
        ]
        self.device.add_service(Service(PLUG.format(0), own))

    def _written(self, what: str, value: bytes) -> None:
        if what in self.values:
            self.values[what] = value
        tell("written", device=self.name, what=what, data=value.hex())

    async def notify(self, uuid: str, value: bytes) -> None:
        if uuid in self.values:
            self.values[uuid] = value
        await self.device.notify_subscribers(self.notifying[uuid], value)


class Sensor(Peer):
    """Broadcasts, and takes no connection."""

    def _elements(self) -> list[tuple[int, bytes]]:
        said = [(AdvertisingData.SERVICE_DATA_16_BIT_UUID, BTHOME.to_bytes(2, "little") + self.data)] if self.data else []
        return [*said, *super()._elements()]


def sealed(address: str, key: bytes, counter: int, measurements: bytes) -> bytes:
    """As https://bthome.io/encryption/ says: nonce of address, UUID, device information and counter; a check value of four bytes."""
    information, count = b"\x41", counter.to_bytes(4, "little")
    nonce = bytes.fromhex(address.replace(":", "")) + BTHOME.to_bytes(2, "little") + information + count
    text = AESCCM(key, tag_length=4).encrypt(nonce, measurements, None)
    return information + text[:-4] + count + text[-4:]


KINDS = {"uart": Uart, "plug": Plug, "sensor": Sensor}


def set_strength(controller: Controller, strength: dict[str, int]) -> None:
    """The signal strength that the box's controller reports from now on; 127 is "not known" (Core 5.4 Vol 4 Part E §7.7.65.2)."""
    send = controller.send_hci_packet

    def changed(packet: Any) -> None:
        reports = getattr(packet, "reports", None)
        if "dbm" in strength and reports:
            packet = type(packet)([dataclasses.replace(report, rssi=strength["dbm"]) for report in reports])
        send(packet)

    controller.send_hci_packet = changed  # type: ignore[method-assign]


async def main(port: int, specs: list[dict[str, Any]]) -> None:
    link, strength = Link(), {}
    transport = await open_transport(f"tcp-server:127.0.0.1:{port}")
    box = Controller("box", host_source=transport.source, host_sink=transport.sink, link=link)
    set_strength(box, strength)
    peers = {spec["name"]: KINDS[spec["kind"]](link, spec) for spec in specs}
    for peer in peers.values():
        await peer.start()
    tell("ready")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
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
            case "unplugged":
                # bumble's controller keeps these over an HCI Reset.
                box.le_scan_enable = False
                for one in peers.values():
                    if one.connection:
                        await one.connection.disconnect()
            case "strength":
                strength["dbm"] = order["dbm"]
        tell("obeyed", do=order["do"])
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
