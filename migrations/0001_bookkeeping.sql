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
  -- The last record written, and its timestamp in milliseconds. A log in which that record has another timestamp is
  -- another log: the topic was deleted and created again. Not looked at once next_offset was set by hand.
  last_offset bigint,
  last_timestamp bigint,
  created_at timestamptz not null default now(),
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
  -- A list of {"name": …, "value": …} in the record's order; a value that is not text stands as "base64". Null for none.
  headers jsonb,
  -- Null for a record without a payload.
  payload bytea,
  -- How long the payload was. It is longer than what stands in `payload` when it was cut at errors.max-payload.
  payload_bytes bigint,
  -- The table it was for, once that was known.
  table_name text,
  -- One of a closed set, for counting. `message` says it to people, without values of the record.
  reason text not null,
  -- What the server said, where it was the server that refused the record.
  sqlstate text,
  message text not null,
  -- The record's own timestamp, as the source gave it.
  record_timestamp timestamptz,
  first_seen timestamptz not null default now(),
  -- How often it was tried, replays included, and when last.
  tries int not null default 1,
  last_tried timestamptz not null default now()
);

-- Not unique: when a topic is created again, or a position is set back by hand, the same offset comes again, and what is
-- there then must be kept as well.
create index dead_letters_position on embedsink.dead_letters (connector, topic, partition, "offset");
