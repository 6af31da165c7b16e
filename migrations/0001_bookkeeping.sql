-- What the connector keeps beside the rows. The schema `embedsink` exists already: the migrator keeps its own table there.

-- How far each partition is written. A position moves only in the transaction that writes its record, by
-- compare-and-set on (epoch, next_offset).
create table embedsink.offsets (
  connector text not null,
  topic text not null,
  partition int not null check (partition >= 0),
  -- The offset of the first record that is not yet written.
  next_offset bigint not null check (next_offset >= 0),
  -- Raised by whoever takes the partition over. Whoever held it before then changes nothing any more.
  epoch bigint not null,
  updated_at timestamptz not null default now(),
  primary key (connector, topic, partition)
)
-- Every batch updates the same few rows. Half a page free keeps each new version on the page, where the next
-- statement clears the old ones away without a vacuum.
with (fillfactor = 50);

-- Records that could not be written, whole, and why.
create table embedsink.dead_letters (
  id bigint generated always as identity primary key,
  connector text not null,
  topic text not null,
  partition int not null,
  "offset" bigint not null,
  key bytea,
  -- Null for a record without a payload.
  payload bytea,
  headers jsonb,
  -- The table the record was meant for, if that could be told.
  table_name text,
  -- One of a closed set, for counting. `message` says it to people, without values of the record.
  reason text not null,
  message text not null,
  record_timestamp timestamptz,
  first_seen timestamptz not null default now(),
  -- A record that is read again is kept once.
  unique (connector, topic, partition, "offset")
);
