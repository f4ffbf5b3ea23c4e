-- Keys of the API, and what was done with them. PostgreSQL 13 SQL.

create table api_key (
    api_key_id uuid primary key,
    name text collate "C" not null,
    -- The first characters of the key, by which its holder tells it from others.
    start text collate "C" not null,
    -- SHA-256 of the whole: the key itself is nowhere.
    sha256 bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    -- To the minute.
    last_used_at timestamptz,
    constraint api_key_sha256 unique (sha256)
);

-- A name is free again once its key is revoked.
create unique index api_key_name on api_key (name) where revoked_at is null;

-- What was written over the API: each line in the transaction that did it.
create table operation (
    operation_id uuid primary key,
    at timestamptz not null default now(),
    api_key_id uuid not null references api_key,
    -- From where.
    client text not null,
    -- What, and to what: a pipeline's name or a cycle's id.
    action text collate "C" not null,
    subject text not null,
    detail json not null,
    outcome text not null,
    cycle_id uuid references cycle on delete cascade,
    -- What the client calls its request, so that it can be said twice, and the digest of what it said.
    idempotency_key text,
    request_sha256 bytea,
    constraint operation_once unique (api_key_id, idempotency_key)
);

create index operation_at on operation (at desc);

create trigger operation_final before update on operation for each row execute function refuse_change();
