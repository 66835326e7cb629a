"""The air itself, and the box's ends of it: bumble's link and controller, mended where they do other than a real controller.

What bumble 0.0.236's controller does, and Linux 6.1 stumbles over:

- it claims LL Privacy and Extended Advertising, which oblige it to report a connection by LE Enhanced Connection Complete (Core 5.4 Vol 4
  Part E §7.7.65.10), and reports it by LE Connection Complete. Linux waits 20 s for the other event after each connection, and until then
  neither scans nor disconnects;
- it takes LE Create Connection Cancel (§7.8.13) and goes on trying, so that no later connection can be made;
- it keeps scan, attempt and connections over an HCI Reset (§7.3.2).
"""

import asyncio
import dataclasses
from typing import Any

from bumble import hci, ll
from bumble.controller import Controller
from bumble.hci import HCI_ErrorCode, LeFeatureMask
from bumble.link import LocalLink

CLAIMED = LeFeatureMask.LL_PRIVACY | LeFeatureMask.LE_EXTENDED_ADVERTISING | LeFeatureMask.LE_PERIODIC_ADVERTISING


class Link(LocalLink):
    """bumble's, but what is sent on a connection comes from the address that it was made with: BlueZ takes another for each scan."""

    def send_acl_data(self, sender_controller: Any, destination_address: Any, transport: Any, data: bytes) -> None:
        connection = sender_controller.le_connections.get(destination_address)
        receiver = self.find_le_controller(destination_address)
        if connection and receiver:
            source = connection.self_address
            asyncio.get_running_loop().call_soon(lambda: receiver.on_link_acl_data(source, transport, data))


class BoxController(Controller):
    """An adapter of the box, a controller of Bluetooth 4.2."""

    le_features = Controller.le_features & ~CLAIMED

    # The signal strength that it reports, if not bumble's; 127 is "not known" (§7.7.65.2).
    strength_dbm: int | None = None

    def send_hci_packet(self, packet: Any) -> None:
        reports = getattr(packet, "reports", None)
        if self.strength_dbm is not None and reports:
            packet = type(packet)([dataclasses.replace(report, rssi=self.strength_dbm) for report in reports])
        super().send_hci_packet(packet)

    def on_hci_le_create_connection_cancel_command(self, _command: Any) -> hci.HCI_StatusReturnParameters:
        cancelled, self.pending_le_connection = self.pending_le_connection, None
        if cancelled is None:
            return hci.HCI_StatusReturnParameters(HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        event = hci.HCI_LE_Connection_Complete_Event(
            status=HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=cancelled.peer_address.address_type,
            peer_address=cancelled.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        # The command is completed before the attempt is.
        asyncio.get_running_loop().call_soon(self.send_hci_packet, event)
        return hci.HCI_StatusReturnParameters(HCI_ErrorCode.SUCCESS)

    def on_hci_reset_command(self, command: Any) -> hci.HCI_StatusReturnParameters:
        self.go_silent()
        return super().on_hci_reset_command(command)

    def go_silent(self) -> None:
        """As when it is reset, or pulled out: the devices hear no more of it."""
        self.le_scan_enable = False
        self.pending_le_connection = None
        connections, self.le_connections = self.le_connections, {}
        for connection in connections.values():
            connection.send_ll_control_pdu(ll.TerminateInd(HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR))
