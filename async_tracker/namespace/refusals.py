"""The commands that the proxy does not let through, each with the reason and what to write instead.

Refused is what would reach, show, count or change what is not in the namespace and takes no key that could be prefixed. What only
concerns one's own connection, or tells of the server as a whole, passes.
"""

from collections.abc import Mapping

EVERYBODYS_KEYS = "it would delete everybody's keys; clear() deletes those of the namespace"
SERVER_WIDE = "it changes the server for everybody; use the client underneath (.redis) if that is what you mean"
TELLS_OF_OTHERS = "it shows what others do with their keys; use the client underneath (.redis) if that is what you mean"
CLUSTER_WIDE = "it moves or drops the keys of everybody; use the client underneath (.redis) if that is what you mean"
LABELS = "it finds its keys by labels, the namespace's and others' alike; keep the names of the keys and read them one by one"
SEARCH = "an index covers keys by a prefix of its own and its names are shared by all; use the client underneath (.redis)"

REFUSED: Mapping[str, str] = {
    "FLUSHALL": EVERYBODYS_KEYS,
    "FLUSHDB": EVERYBODYS_KEYS,
    "SWAPDB": "it exchanges the keys of everybody",
    "RANDOMKEY": "it picks among everybody's keys; scan_iter() walks those of the namespace",
    "DBSIZE": "it counts everybody's keys; count() counts those of the namespace",
    "CLUSTERSCAN": "it walks everybody's keys; scan_iter() walks those of the namespace",
    "MONITOR": TELLS_OF_OTHERS,
    "SLOWLOG GET": TELLS_OF_OTHERS,
    "SLOWLOG RESET": SERVER_WIDE,
    "COMMANDLOG GET": TELLS_OF_OTHERS,
    "COMMANDLOG RESET": SERVER_WIDE,
    "HOTKEYS GET": TELLS_OF_OTHERS,
    "HOTKEYS START": SERVER_WIDE,
    "HOTKEYS STOP": SERVER_WIDE,
    "HOTKEYS RESET": SERVER_WIDE,
    "ACL LOG": TELLS_OF_OTHERS,
    "ACL SETUSER": "the key patterns in its rules would be everybody's; use the client underneath (.redis), with full key names",
    "ACL DELUSER": SERVER_WIDE,
    "ACL LOAD": SERVER_WIDE,
    "ACL SAVE": SERVER_WIDE,
    "CLUSTER COUNTKEYSINSLOT": "it counts everybody's keys; count() counts those of the namespace",
    "CLUSTER GETKEYSINSLOT": "it lists everybody's keys; scan_iter() walks those of the namespace",
    "SCRIPT FLUSH": "scripts are shared by all clients of the server; nothing needs to be flushed for a new script to be used",
    "SCRIPT KILL": "the script that runs may be another client's; use the client underneath (.redis) if that is what you mean",
    "FUNCTION FLUSH": "functions are shared by all clients of the server; FUNCTION DELETE drops one library",
    "FUNCTION KILL": "the function that runs may be another client's; use the client underneath (.redis) if that is what you mean",
    "FUNCTION RESTORE": "functions are shared by all clients of the server, and it can replace all of them; FUNCTION LOAD adds one library",
    "SELECT": "it would move a shared connection to another database; make a client with db=... and a Namespace over that",
    "SYNC": "it copies everybody's keys",
    "PSYNC": "it copies everybody's keys",
    "REPLCONF": "it belongs to the replication of everybody's keys",
    "HOST:": "it is no command but the header of an HTTP request",
    "POST": "it is no command but the beginning of an HTTP request",
    "TS.MGET": LABELS,
    "TS.MRANGE": LABELS,
    "TS.MREVRANGE": LABELS,
    "TS.QUERYINDEX": LABELS,
    "TS.QUERYLABELS": LABELS,
    **dict.fromkeys(("SHUTDOWN", "FAILOVER", "REPLICAOF", "SLAVEOF", "DEBUG", "SCRIPT DEBUG"), SERVER_WIDE),
    **dict.fromkeys(("MODULE LOAD", "MODULE LOADEX", "MODULE UNLOAD", "BACKUP"), SERVER_WIDE),
    **dict.fromkeys(("CONFIG SET", "CONFIG REWRITE", "CONFIG RESETSTAT", "LATENCY RESET"), SERVER_WIDE),
    **dict.fromkeys(
        (
            "CLUSTER ADDSLOTS",
            "CLUSTER ADDSLOTSRANGE",
            "CLUSTER BUMPEPOCH",
            "CLUSTER CANCELSLOTMIGRATIONS",
            "CLUSTER DELSLOTS",
            "CLUSTER DELSLOTSRANGE",
            "CLUSTER FAILOVER",
            "CLUSTER FLUSHSLOT",
            "CLUSTER FLUSHSLOTS",
            "CLUSTER FORGET",
            "CLUSTER MEET",
            "CLUSTER MIGRATESLOTS",
            "CLUSTER MIGRATION",
            "CLUSTER REPLICATE",
            "CLUSTER RESET",
            "CLUSTER SAVECONFIG",
            "CLUSTER SET-CONFIG-EPOCH",
            "CLUSTER SETSLOT",
            "CLUSTER SYNCSLOTS",
        ),
        CLUSTER_WIDE,
    ),
}

REFUSED_FAMILIES: Mapping[str, str] = {
    "FT.": SEARCH,
    "GRAPH.": "the names of graphs are listed and queried by the server as a whole; use the client underneath (.redis)",
    "SENTINEL": SERVER_WIDE,
    "TIMESERIES.": "it belongs to the module's own talk between servers",
}
