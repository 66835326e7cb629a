"""The lab's radio does what a real controller does, as far as Linux relies on it (radio/controller.py)."""

import asyncio
import sys
import unittest
from typing import Any
from unittest import mock

from autoglm_lab.air import tools
from autoglm_lab.places import lab_directory

sys.path[:0] = [str(tools()), str(lab_directory() / "radio")]

import devices
from bumble import hci
from bumble.att import ATT_Error, Attribute
from controller import BoxController, Link

PRESENT, ABSENT = "F0:00:00:00:00:01", "F0:00:00:00:00:02"
# A device advertises ten times a second.
PATIENCE_S = 5


class Radio(unittest.IsolatedAsyncioTestCase):
    """The box's host is this test: it sends commands, and looks at what comes back."""

    async def asyncSetUp(self) -> None:
        quiet = mock.patch.object(devices, "tell")
        self.told = quiet.start()
        self.addCleanup(quiet.stop)
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.box = BoxController("box", host_sink=self, link=Link(), public_address="00:1B:DC:00:00:01")
        self.device = devices.Plug(self.box.link, {"kind": "plug", "name": "Plug", "address": PRESENT})
        await self.device.start()

    async def asyncTearDown(self) -> None:
        await self.device.hide()

    def on_packet(self, packet: bytes) -> None:
        self.heard.put_nowait(hci.HCI_Packet.from_bytes(packet))

    def send(self, command: Any) -> None:
        self.box.on_packet(bytes(command))

    async def next(self, kind: type) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while not isinstance(packet := await self.heard.get(), kind):
                pass
        return packet

    async def status(self) -> int:
        return (await self.next(hci.HCI_Command_Complete_Event)).return_parameters.status

    def connect(self, address: str) -> None:
        self.send(
            hci.HCI_LE_Create_Connection_Command(
                le_scan_interval=96,
                le_scan_window=96,
                initiator_filter_policy=0,
                peer_address_type=hci.Address.RANDOM_DEVICE_ADDRESS,
                peer_address=hci.Address(address),
                own_address_type=hci.OwnAddressType.PUBLIC,
                connection_interval_min=24,
                connection_interval_max=40,
                max_latency=0,
                supervision_timeout=42,
                min_ce_length=0,
                max_ce_length=0,
            )
        )

    async def connected(self) -> int:
        return (await self.next(hci.HCI_LE_Connection_Complete_Event)).status

    async def test_a_connection_is_reported_by_the_event_that_its_features_oblige_it_to(self):
        # Core 5.4 Vol 4 Part E §7.7.65.10: with either of the two it is LE Enhanced Connection Complete, which bumble never sends.
        self.send(hci.HCI_LE_Read_Local_Supported_Features_Command())
        claimed = (await self.next(hci.HCI_Command_Complete_Event)).return_parameters.le_features
        obliging = hci.LeFeatureMask.LL_PRIVACY | hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
        self.assertEqual(int.from_bytes(claimed, "little") & obliging, 0)
        self.connect(PRESENT)
        self.assertEqual(await self.connected(), hci.HCI_ErrorCode.SUCCESS)

    async def test_an_attempt_that_is_cancelled_is_over_and_another_can_be_made(self):
        self.connect(ABSENT)
        self.send(hci.HCI_LE_Create_Connection_Cancel_Command())
        self.assertEqual(await self.status(), hci.HCI_ErrorCode.SUCCESS)
        self.assertEqual(await self.connected(), hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR)
        self.send(hci.HCI_LE_Create_Connection_Cancel_Command())
        self.assertEqual(await self.status(), hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.connect(PRESENT)
        self.assertEqual(await self.connected(), hci.HCI_ErrorCode.SUCCESS)

    async def test_a_reset_ends_connections_at_both_sides(self):
        self.connect(PRESENT)
        await self.connected()
        self.send(hci.HCI_Reset_Command())
        self.assertEqual(await self.status(), hci.HCI_ErrorCode.SUCCESS)
        self.assertEqual(self.box.le_connections, {})
        async with asyncio.timeout(PATIENCE_S):
            while mock.call("gone", device="Plug") not in self.told.mock_calls:
                await asyncio.sleep(0.01)
        self.connect(PRESENT)
        self.assertEqual(await self.connected(), hci.HCI_ErrorCode.SUCCESS)

    async def test_only_what_may_be_written_is_written(self):
        table = self.device.device.gatt_server.attributes
        declarations = [one for one in table if not one.permissions & Attribute.WRITEABLE]
        self.assertGreater(len(declarations), 5)
        for one in declarations:
            with self.assertRaises(ATT_Error):
                await one.write_value(None, b"\x01\x00")
        await self.device.shift()
        self.assertTrue(any(one.permissions & Attribute.WRITEABLE for one in self.device.device.gatt_server.attributes))

    async def test_a_strength_that_is_not_known_is_reported_so(self):
        self.box.strength_dbm = 127
        self.send(hci.HCI_LE_Set_Scan_Enable_Command(le_scan_enable=1, filter_duplicates=0))
        report = await self.next(hci.HCI_LE_Advertising_Report_Event)
        self.assertEqual([one.rssi for one in report.reports], [127])


if __name__ == "__main__":
    unittest.main()
