-- What discoveries on a chain leave behind. PostgreSQL 13 SQL.

-- The block that a cycle is pinned to, of which `block` has been there from the start: set with the output of its discovery.
alter table cycle
    add column genesis text,
    add column netuid integer,
    add column block_hash text;

-- Since when each hotkey of a subnet has served what it serves. The last discovery's word; a hotkey that has left keeps its
-- row, which helps nobody: whoever registers again does so at another block.
create table standing (
    -- Hash of the chain's first block: which chain, whatever its nodes are called.
    genesis text collate "C" not null,
    netuid integer not null,
    hotkey text collate "C" not null,
    first_block bigint not null,
    registered_at bigint,
    -- With its revision.
    model text not null,
    -- SHA-256 of the endpoint: miners may hide theirs.
    endpoint text not null,
    -- The block at which it was seen so last.
    block bigint not null,
    primary key (genesis, netuid, hotkey)
);
