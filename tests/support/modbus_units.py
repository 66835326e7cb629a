"""Three Modbus units of pymodbus on one serial line, or behind one TCP port of loopback: modbus_units.py LINE | modbus_units.py PORT

Unit 1 is a thermometer (input registers), unit 2 a pump (coil and holding registers), unit 3 a meter (floats in both word orders,
and a register that it refuses). Every other unit is silent. The registers are those of tests/things/foreign/*.td.json.
"""

import asyncio
import struct
import sys

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def registers(address: int, values: list[int]) -> SimData:
    return SimData(address, values=values, datatype=DataType.REGISTERS)


def float_words(value: float) -> list[int]:
    return list(struct.unpack(">HH", struct.pack(">f", value)))


def no_bits() -> list[SimData]:
    return [SimData(0, values=[False] * 16, datatype=DataType.BITS)]


async def refuse(function_code, start, address, count, current, new):
    """The meter's register 90 is broken."""
    return ExcCodes.DEVICE_FAILURE if address <= 90 < address + count else None


THERMOMETER = SimDevice(1, (no_bits(), no_bits(), [registers(0, [0] * 4)], [registers(0, [217, 405, 65436])]))
PUMP = SimDevice(2, (no_bits(), no_bits(), [registers(0, [30, 0xAB00, 0, 0])], [registers(0, [0])]))
METER = SimDevice(
    3,
    (
        no_bits(),
        no_bits(),
        [registers(0, [0] * 100)],
        [registers(0, float_words(230.5) + float_words(1.25)[::-1] + [0] * 96)],
    ),
    action=refuse,
)


class OnlyThese(dict):
    """pymodbus 3.16 answers for units that it does not have with a device failure; a serial bus is silent there."""

    def __missing__(self, _unit):
        raise NoSuchIdException


async def main(place: str) -> None:
    units = [THERMOMETER, PUMP, METER]
    if place.isdigit():
        address = ("127.0.0.1", int(place))
        server = ModbusTcpServer(context=units, framer=FramerType.SOCKET, address=address, ignore_missing_devices=True)
    else:
        server = ModbusSerialServer(
            context=units, framer=FramerType.RTU, port=place, baudrate=19200, ignore_missing_devices=True
        )
    server.context.devices = OnlyThese(server.context.devices)
    await server.serve_forever()


asyncio.run(main(sys.argv[1]))
