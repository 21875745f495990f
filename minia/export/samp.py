"""A table sent to the programs that are open: TOPCAT, Aladin and DS9 listen to each other through a SAMP hub."""

from __future__ import annotations

from pathlib import Path

from minia.core.artifact import InputError

_MESSAGE = "table.load.votable"


def broadcast(table: Path, name: str) -> list[str]:
    """Tell every program at the hub to load a VOTable.

    Args:
        table: the file; it must stay until they have read it.
        name: what they show it as.

    Returns:
        The names of the programs that load VOTables, sorted.

    Raises:
        InputError: no hub is running.
    """
    try:
        from pyvo.samp import SAMPHubError, SAMPIntegratedClient
    except ImportError:  # where it was until astropy 8
        from astropy.samp import SAMPHubError, SAMPIntegratedClient

    client = SAMPIntegratedClient(name="minIA", description="Parts found by minIA", callable=False)
    try:
        client.connect()
    except SAMPHubError:
        raise InputError("no SAMP hub is running: start TOPCAT or Aladin first, which bring one") from None
    try:
        listening = [str(client.get_metadata(each).get("samp.name", each)) for each in _listeners(client)]
        client.notify_all(
            {
                "samp.mtype": _MESSAGE,
                "samp.params": {"url": table.absolute().as_uri(), "table-id": f"minia {name}", "name": name},
            }
        )
    finally:
        client.disconnect()
    return sorted(listening)


def _listeners(client: object) -> list[str]:
    return [str(each) for each in client.get_subscribed_clients(_MESSAGE)]  # type: ignore[attr-defined]
