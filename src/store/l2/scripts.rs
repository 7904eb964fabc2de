//! What Redis does in one step. All keys of a call are of one URL and so in one slot; what is built from them (`e:` and
//! `l:` of a variant) is, too.
//!
//! What removes an entry or takes its place removes its pieces in the same step.
//!
//! Two things keep what is old from coming back, and neither asks for clocks that agree to the millisecond:
//!
//! - **A removal leaves a number behind** (`x`) for longer than a fill takes. A fill notes what lies there when it looks,
//!   and its write is refused where something else lies there by then: the removal came in between. It does not matter
//!   whether the fill held the lease; one whose look-up had no answer may write only where nothing lies there.
//! - **Each value says where the fleet's purge log was and when its fill began**: of two, the one that began at an
//!   earlier position, or at the same and earlier, never takes the place of the other. So a node that was paused for
//!   longer than its lease does no harm.
//!
//! The lease (`l`) is 16 bytes that stand for its holder, then where the fleet's purge log was when its fill began (16
//! bytes, as in a value), and a `w` behind them once somebody waits. Or it is `u`: what was filled was not storable a
//! moment ago, so that those who waited go on at once, side by side.

use crate::kv::Script;

/// A script that removes entries: before its own text, how one is removed with its pieces (`pieces.rs`). Their names
/// are made of the entry's, which is in the same slot.
macro_rules! removing {
    ($script:literal) => {
        concat!(
            r"
local function remove_entry(name)
  local head = redis.call('GETRANGE', name, 0, 73)
  if #head == 74 and math.floor(string.byte(head, 6) / 4) % 2 == 1 then
    local a, b, c, d, each, bytes = struct.unpack('>I4I4I4I4I4I4', string.sub(head, 51))
    local count = math.ceil(bytes / each)
    if each > 0 and count <= 4096 then
      local pieces = string.gsub(name, '}:e', '}:p', 1) .. string.format(':%08x%08x%08x%08x:', a, b, c, d)
      for nth = 0, count - 1 do redis.call('UNLINK', pieces .. nth) end
    end
  end
  return redis.call('UNLINK', name)
end
",
            $script
        )
    };
}

/// What stands for a holder of a lease.
pub(super) const TOKEN: usize = 16;

/// What [`LOOK`] answers first, where there is something to tell.
pub(super) mod looked {
    /// And the value.
    pub(in super::super) const FOUND: i64 = 1;
    /// Found, and too long to come along.
    pub(in super::super) const LARGE: i64 = 2;
    /// And the records of variants.
    pub(in super::super) const VARIANTS: i64 = 3;
    pub(in super::super) const LEASED: i64 = 4;
    /// And whose the lease is.
    pub(in super::super) const BUSY: i64 = 5;
    pub(in super::super) const UNSTORABLE: i64 = 6;
}

/// What [`PUT`] answers first.
pub(super) mod put {
    pub(in super::super) const STORED: i64 = 1;
    /// Something newer lies there.
    pub(in super::super) const OUTDATED: i64 = 2;
    /// Removed since the fill began.
    pub(in super::super) const FENCED: i64 = 3;
    /// A variant that is not among those of its URL: no removal would find it.
    pub(in super::super) const UNLISTED: i64 = 4;
}

/// Looks for an entry, and takes the lease where there is none.
///
/// `KEYS` e l v x. `ARGV` token; milliseconds of the lease, empty for none; only what was stored after that, in
/// milliseconds, empty for all; tell the variants if there are more than so many, empty for never; longest value to come
/// along; where the log is; the holder whose lease is taken from it, empty for none.
pub(super) static LOOK: Script = Script::new(
    r"
local removed = redis.call('GET', KEYS[4]) or ''
local length = redis.call('STRLEN', KEYS[1])
if length >= 50 then
  local newer = true
  if ARGV[3] ~= '' then
    local high, low = struct.unpack('>I4I4', redis.call('GETRANGE', KEYS[1], 30, 37))
    newer = high * 4294967296 + low > tonumber(ARGV[3])
  end
  if newer then
    if length > tonumber(ARGV[5]) then return {2, removed} end
    return {1, removed, redis.call('GET', KEYS[1])}
  end
end
if ARGV[4] ~= '' and redis.call('HLEN', KEYS[3]) > tonumber(ARGV[4]) then
  local reply = {3, removed}
  for _, record in ipairs(redis.call('HVALS', KEYS[3])) do reply[#reply + 1] = record end
  return reply
end
if ARGV[2] == '' then return {0, removed} end
local lease = redis.call('GET', KEYS[2])
if lease == 'u' then return {6, removed} end
local holder = lease and string.sub(lease, 1, 16)
if holder and holder ~= ARGV[1] and holder ~= ARGV[7] then
  -- The time it has left stays as it is.
  if #lease == 32 then redis.call('APPEND', KEYS[2], 'w') end
  return {5, removed, string.sub(lease, 1, 32)}
end
redis.call('SET', KEYS[2], ARGV[1] .. ARGV[6], 'PX', ARGV[2])
return {4, removed}
",
);

/// Stores an entry, and gives the lease back whatever comes of it. Beside what came of it: whether somebody waits.
///
/// `KEYS` e l v x and the e of the primary key. `ARGV` value; milliseconds to keep it; token; what lay under x, `?` where
/// nobody knows; name of the variant, empty for the primary key; its record, empty where it has to be listed; most
/// variants.
pub(super) static PUT: Script = Script::new(removing!(
    r"
local waited = 0
local lease = redis.call('GET', KEYS[2])
if lease and #lease >= 32 and string.sub(lease, 1, 16) == ARGV[3] then
  redis.call('DEL', KEYS[2])
  if #lease > 32 then waited = 1 end
end
local removed = redis.call('GET', KEYS[4])
if removed and removed ~= ARGV[4] then return {3, waited} end
local value, keep, field = ARGV[1], tonumber(ARGV[2]), ARGV[5]
local there = redis.call('GETRANGE', KEYS[1], 0, 37)
if #there == 38 and string.sub(there, 1, 5) == string.sub(value, 1, 5) then
  -- As two halves: a number of Lua has 53 bits.
  local function later(at)
    local ours, ours_low = struct.unpack('>I4I4', value, at)
    local theirs, theirs_low = struct.unpack('>I4I4', there, at)
    if theirs ~= ours then return theirs > ours end
    if theirs_low ~= ours_low then return theirs_low > ours_low end
    return nil
  end
  local outdated = nil
  if string.sub(there, 7, 14) == string.sub(value, 7, 14) then outdated = later(15) end
  if outdated == nil then outdated = later(23) end
  if outdated then return {2, waited} end
end
if field == '' then
  -- One for everybody takes the place of variants.
  for _, variant in ipairs(redis.call('HKEYS', KEYS[3])) do remove_entry(KEYS[5] .. ':' .. variant) end
  redis.call('DEL', KEYS[3])
else
  if redis.call('HEXISTS', KEYS[3], field) == 0 then
    if ARGV[6] == '' then return {4, waited} end
    if redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[7]) then
      -- The one stored first makes room, with its entry: nothing would find that any more.
      local oldest, when = nil, nil
      local all = redis.call('HGETALL', KEYS[3])
      for i = 1, #all, 2 do
        local high, low = struct.unpack('>I4I4', all[i + 1])
        local stored = high * 4294967296 + low
        if not when or stored < when then oldest, when = all[i], stored end
      end
      redis.call('HDEL', KEYS[3], oldest)
      remove_entry(KEYS[5] .. ':' .. oldest)
    end
  end
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[3], field, ARGV[6]) end
  if redis.call('PTTL', KEYS[3]) < keep then redis.call('PEXPIRE', KEYS[3], keep) end
  remove_entry(KEYS[5])
end
remove_entry(KEYS[1])
redis.call('SET', KEYS[1], value, 'PX', keep)
return {1, waited}
"
));

/// Gives a lease back without an entry. Whether somebody waits.
///
/// `KEYS` l e. `ARGV` token; milliseconds for which others need not wait for each other, empty where one of them is to
/// try; take the entry out that began no later than then, in milliseconds, empty for none.
pub(super) static SETTLE: Script = Script::new(removing!(
    r"
local waited = 0
local lease = redis.call('GET', KEYS[1])
if lease and #lease >= 32 and string.sub(lease, 1, 16) == ARGV[1] then
  if #lease > 32 then waited = 1 end
  if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], 'u', 'PX', ARGV[2]) end
end
if ARGV[3] ~= '' then
  local begun = redis.call('GETRANGE', KEYS[2], 22, 29)
  if #begun == 8 then
    local high, low = struct.unpack('>I4I4', begun)
    if high * 4294967296 + low <= tonumber(ARGV[3]) then remove_entry(KEYS[2]) end
  end
end
return waited
"
));

/// Keeps a lease. Whether it is ours still.
///
/// `KEYS` l. `ARGV` token; milliseconds.
pub(super) static RENEW: Script = Script::new(
    r"
local lease = redis.call('GET', KEYS[1])
if not lease or string.sub(lease, 1, 16) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
);

/// Removes all that is stored of a URL under one primary key, and keeps fills under way from bringing it back. The list
/// of variants stays: which fields select one has not changed. How many there were, and whether somebody waits.
///
/// `KEYS` e l v x. `ARGV` a number that nobody else has; milliseconds to keep it; names of variants that are known.
pub(super) static REMOVE: Script = Script::new(removing!(
    r"
local variants = redis.call('HKEYS', KEYS[3])
for i = 3, #ARGV do variants[#variants + 1] = ARGV[i] end
local removed, waited = 0, 0
local function remove(variant)
  removed = removed + remove_entry(KEYS[1] .. variant)
  if redis.call('STRLEN', KEYS[2] .. variant) > 32 then waited = 1 end
  redis.call('DEL', KEYS[2] .. variant)
end
remove('')
for _, variant in ipairs(variants) do remove(':' .. variant) end
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[2])
return {removed, waited}
"
));

/// Tells all nodes that a fill has ended for which one of them waits.
///
/// `KEYS` the stream of wake-ups. `ARGV` what stands for the primary key.
pub(super) static WAKE: Script = Script::new(
    r"
redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000, '*', 'k', ARGV[1])
-- Of use for a moment only.
return redis.call('PEXPIRE', KEYS[1], 600000)
",
);

/// Takes out what is no entry; not what has taken its place.
///
/// `KEYS` e. `ARGV` how it begins.
pub(super) static DISCARD: Script = Script::new(removing!(
    r"
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
return remove_entry(KEYS[1])
"
));

/// Notes that something of a URL is stored under keys that the URL does not give, for as long as the longest of it.
///
/// `KEYS` s. `ARGV` milliseconds.
pub(super) static SCATTER: Script = Script::new(
    r"
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end
return 1
",
);
