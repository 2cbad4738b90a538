"""What Redis keeps: the keys, the formats, one Lua file per verb, one method each."""
