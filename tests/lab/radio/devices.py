"""The devices on the air, each with an address, a controller and a host stack of its own (bumble's). What each kind is: air.py."""

import asyncio
import contextlib
import json
import socket
from typing import Any

from bumble.att import ATT_Error, Attribute, ErrorCode
from bumble.controller import Controller
from bumble.core import AdvertisingData
from bumble.device import AdvertisingType, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.gatt_server import Server
from bumble.hci import Address
from bumble.host import Host
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport.common import AsyncPipeSink
from controller import Link
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

UART = "6E40000{}-B5A3-F393-E0A9-E50E24DCCA9E"
PLUG = "0000A00{}-0000-1000-8000-00805F9B34FB"
BTHOME = 0xFCD2
INTERVAL_MS = 100
# A notification that is overtaken waits this long for the next.
JUMBLE_S = 0.02


def tell(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


class Peer:
    """One device on the air."""

    def __init__(self, link: Link, spec: dict[str, Any]):
        self.spec, self.name = spec, spec["name"]
        address = Address(spec["address"])
        controller = Controller(self.name, link=link)
        controller.random_address = address
        self.device = Device(name=self.name, address=address, host=Host(controller, AsyncPipeSink(controller)))
        self.connection: Any = None
        self.is_shown = True
        self.turn = asyncio.Lock()
        self.data = b""
        self.device.on("connection", self._on_connection)

    async def start(self) -> None:
        self._serve()
        self._guard()
        if "mtu" in self.spec:
            self.device.gatt_server.max_mtu = self.spec["mtu"]
        await self.device.power_on()
        await self.advertise()

    def _serve(self) -> None:
        pass

    def _guard(self) -> None:
        """bumble takes every write, and a host with an older table in its cache writes to what has become a declaration."""

        async def refuse(_bearer: Any, _value: bytes) -> None:
            raise ATT_Error(ErrorCode.WRITE_NOT_PERMITTED)

        for attribute in self.device.gatt_server.attributes:
            if not attribute.permissions & Attribute.WRITEABLE:
                attribute.write_value = refuse  # type: ignore[method-assign]

    def _elements(self) -> list[tuple[int, bytes]]:
        return [(AdvertisingData.COMPLETE_LOCAL_NAME, self.name.encode())]

    async def advertise(self) -> None:
        """Anew, or no more. bumble must not be told so twice at a time."""
        async with self.turn:
            await self.device.stop_advertising()
            if self.is_shown:
                await self._start_advertising()

    async def _start_advertising(self) -> None:
        self.device.advertising_data = bytes(AdvertisingData([(AdvertisingData.FLAGS, b"\x06"), *self._elements()]))
        kind = AdvertisingType.UNDIRECTED
        if self.spec["kind"] == "sensor":
            kind = AdvertisingType.UNDIRECTED_SCANNABLE
        await self.device.start_advertising(
            advertising_type=kind,
            advertising_interval_min=INTERVAL_MS,
            advertising_interval_max=INTERVAL_MS,
        )

    async def hide(self) -> None:
        self.is_shown = False
        await self.advertise()
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
        self._guard()

    def _on_connection(self, connection: Any) -> None:
        self.connection = connection
        tell("connected", device=self.name)
        connection.on("disconnection", lambda reason: self._on_gone())

    def _on_gone(self) -> None:
        self.connection = None
        tell("gone", device=self.name)
        if self.is_shown:
            self.return_to_air = asyncio.get_running_loop().create_task(self.advertise())


def _readable(uuid: str, value: Any, permissions: Any = Attribute.READABLE) -> Characteristic:
    return Characteristic(uuid, Characteristic.Properties.READ, permissions, value)


class Uart(Peer, asyncio.DatagramProtocol):
    """Packets between the box and a program on this side. To it: `+` and the packet size, `=` and a packet, `-` at the end."""

    def __init__(self, link: Link, spec: dict[str, Any]):
        super().__init__(link, spec)
        self.packets: asyncio.Queue[bytes] = asyncio.Queue(64)
        self.socket: Any = None

    async def start(self) -> None:
        path = self.spec["socket"]
        loop = asyncio.get_running_loop()
        self.socket, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=path, family=socket.AF_UNIX)
        self.pump = loop.create_task(self._pump())
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
                with contextlib.suppress(TimeoutError):
                    packets.insert(0, await asyncio.wait_for(self.packets.get(), JUMBLE_S))
            for packet in packets:
                if self.connection:
                    try:
                        await self.device.notify_subscriber(self.connection, self.notify, packet)
                    except Exception as error:  # the connection may end meanwhile
                        tell("lost", device=self.name, error=str(error))


class Display(PairingDelegate):
    """Shows a passkey that is always the same."""

    def __init__(self, passkey: int, name: str):
        super().__init__(io_capability=PairingDelegate.DISPLAY_OUTPUT_ONLY)
        self.passkey, self.name = passkey, name

    async def generate_passkey(self) -> int:
        return self.passkey

    async def display_number(self, number: int, digits: int) -> None:
        tell("passkey", device=self.name, digits=f"{number:06}")


class Keys(PairingDelegate):
    """Has keys to type a passkey on, and nothing to show."""

    def __init__(self, name: str):
        super().__init__(io_capability=PairingDelegate.KEYBOARD_INPUT_ONLY)
        self.name, self.typed = name, asyncio.Queue[int](1)

    async def get_number(self) -> int | None:
        tell("wanted", device=self.name)
        return await self.typed.get()


class Plug(Peer):
    """A foreign device with a temperature, a level, an action and a button."""

    def _serve(self) -> None:
        self.values = {"2A6E": (2506).to_bytes(2, "little"), "level": b"\x07"}
        properties, permissions = Characteristic.Properties, Attribute.READABLE
        if "passkey" in self.spec:
            permissions |= Attribute.READ_REQUIRES_AUTHENTICATION
            self._pair_by(Display(self.spec["passkey"], self.name))
        elif self.spec.get("keys"):
            permissions |= Attribute.READ_REQUIRES_AUTHENTICATION
            self.keys = Keys(self.name)
            self._pair_by(self.keys)
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

    def _pair_by(self, delegate: PairingDelegate) -> None:
        self.device.pairing_config_factory = lambda _connection: PairingConfig(delegate=delegate)

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
        said = (
            [(AdvertisingData.SERVICE_DATA_16_BIT_UUID, BTHOME.to_bytes(2, "little") + self.data)] if self.data else []
        )
        return [*said, *super()._elements()]


def sealed(address: str, key: bytes, counter: int, measurements: bytes) -> bytes:
    """As https://bthome.io/encryption/ says: nonce of address, UUID, device information and counter; a check value of four bytes."""
    information, count = b"\x41", counter.to_bytes(4, "little")
    nonce = bytes.fromhex(address.replace(":", "")) + BTHOME.to_bytes(2, "little") + information + count
    text = AESCCM(key, tag_length=4).encrypt(nonce, measurements, None)
    return information + text[:-4] + count + text[-4:]


KINDS = {"uart": Uart, "plug": Plug, "sensor": Sensor}
