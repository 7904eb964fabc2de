//! The steps that Redis does as one. All keys are in one slot.
//!
//! ```text
//!  ns:{ns.fleet}:meta      hash: life, epoch, seq, digest: the head of the log
//!  ns:{ns.fleet}:log       stream: id epoch-seq; p digest of the record before, h digest up to this one, d the record
//!  ns:{ns.fleet}:snapshot  the table of watermarks at some record, for who comes later than the log begins
//!  ns:{ns.fleet}:nodes     hash: node → what it says of itself
//!  ns:{ns.fleet}:id:…      where the purge of that id is in the log
//! ```
//!
//! Ids are given, not made by Redis: after a fail-over a replica could make ids below those that readers have seen, and they
//! would pass over them. A digest over all that came before tells two logs apart that have the same ids.

use crate::kv::Script;

/// Makes the log where there is none. KEYS meta, log, snapshot, nodes; ARGV life, first record.
pub(super) static HELLO: Script = Script::new(
    r"
local m = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq', 'digest')
if m[1] and redis.call('EXISTS', KEYS[2]) == 1 then
  return {m[1], m[2], m[3], m[4], 0}
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
local digest = redis.sha1hex(ARGV[1])
redis.call('HSET', KEYS[1], 'life', ARGV[1], 'epoch', '1', 'seq', '0', 'digest', digest)
redis.call('XADD', KEYS[2], '1-0', 'p', '', 'h', digest, 'd', ARGV[2])
return {ARGV[1], '1', '0', digest, 1}
",
);

/// Appends a record, once. KEYS meta, log, id; ARGV record, milliseconds the id is remembered, not empty for once more.
pub(super) static APPEND: Script = Script::new(
    r"
local m = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq', 'digest')
if not m[1] or redis.call('EXISTS', KEYS[2]) == 0 then return {} end
local known = redis.call('GET', KEYS[3])
if known and ARGV[3] == '' then
  local life, epoch, seq, digest = string.match(known, '^(%S+) (%S+) (%S+) (%S+)$')
  if life == m[1] then return {life, epoch, seq, digest, 1} end
end
local seq = string.format('%.0f', tonumber(m[3]) + 1)
local digest = redis.sha1hex(m[4] .. ARGV[1])
redis.call('XADD', KEYS[2], m[2] .. '-' .. seq, 'p', m[4], 'h', digest, 'd', ARGV[1])
redis.call('HSET', KEYS[1], 'seq', seq, 'digest', digest)
redis.call('SET', KEYS[3], m[1] .. ' ' .. m[2] .. ' ' .. seq .. ' ' .. digest, 'PX', ARGV[2])
return {m[1], m[2], seq, digest, 0}
",
);

/// Says how far a node is, and tells it the head and all nodes; or what is wrong. KEYS meta, log, nodes; ARGV node, life,
/// epoch, seq, digest, what it says of itself, nodes to be forgotten.
pub(super) static BEAT: Script = Script::new(
    r"
local m = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq', 'digest')
if not m[1] or redis.call('EXISTS', KEYS[2]) == 0 then return {'unborn'} end
if m[1] ~= ARGV[2] then return {'other'} end
local e, s, he, hs = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(m[2]), tonumber(m[3])
if e > he or (e == he and s > hs) then return {'ahead'} end
local at = ARGV[3] .. '-' .. ARGV[4]
local there = redis.call('XRANGE', KEYS[2], at, at)
if there[1] then
  if there[1][2][4] ~= ARGV[5] then return {'forked'} end
else
  -- Trimmed away, or never there.
  local before = redis.call('XREVRANGE', KEYS[2], at, '-', 'COUNT', 1)
  if before[1] then return {'forked'} end
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[6])
for i = 7, #ARGV do redis.call('HDEL', KEYS[3], ARGV[i]) end
return {'ok', m[2], m[3], m[4], redis.call('XLEN', KEYS[2]), redis.call('HGETALL', KEYS[3])}
",
);

/// Tells the head. KEYS meta.
pub(super) static HEAD: Script = Script::new("return redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq', 'digest')");

/// Begins an epoch, if nobody else has. KEYS meta, log; ARGV life, epoch there is, epoch there is to be, record.
pub(super) static TURN: Script = Script::new(
    r"
local m = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq', 'digest')
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return 0 end
local digest = redis.sha1hex(m[4] .. ARGV[4])
redis.call('XADD', KEYS[2], ARGV[3] .. '-0', 'p', m[4], 'h', digest, 'd', ARGV[4])
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'seq', '0', 'digest', digest)
return 1
",
);

/// Puts a snapshot in the place of the oldest records, if there are still so many of them. KEYS log, snapshot, meta; ARGV
/// life, id of the snapshot's record, its digest, snapshot, id of the oldest record that stays, records there may be.
pub(super) static SAVE: Script = Script::new(
    r"
if redis.call('XLEN', KEYS[1]) < tonumber(ARGV[6]) then return 0 end
if redis.call('HGET', KEYS[3], 'life') ~= ARGV[1] then return 0 end
local there = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if not there[1] or there[1][2][4] ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[2], ARGV[4])
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[5])
return 1
",
);
