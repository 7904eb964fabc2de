//! What two texts must have in common word by word, however near their vectors are: vectors know what a text is about, and
//! hardly tell "is" from "is not", 10 from 100 and France from Germany.
//!
//! It is cheap and errs to one side: of two texts with the same facts it says nothing, and of many that mean the same it says
//! that they do not.

/// What counts of a text, each kind in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Words with a digit, and numbers in words.
    numbers: Vec<String>,
    /// How often something is denied.
    negations: usize,
    /// What stands in quotation marks.
    quoted: Vec<String>,
    /// Names: words that are written large within a sentence, and what only programs call so.
    names: Vec<String>,
    /// Which of two opposites is meant.
    poles: Vec<String>,
    /// Characters of code and formulas, in their order.
    symbols: String,
    /// Blocks of code.
    code: Vec<String>,
}

const NUMBERS: [(&str, &str); 30] = [
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("twenty", "20"),
    ("thirty", "30"),
    ("forty", "40"),
    ("fifty", "50"),
    ("hundred", "100"),
    ("thousand", "1000"),
    ("million", "1000000"),
    ("billion", "1000000000"),
    ("second", "2nd"),
    ("third", "3rd"),
    ("half", "half"),
    ("twice", "twice"),
    ("double", "twice"),
    ("zwei", "2"),
    ("drei", "3"),
    ("deux", "2"),
    ("trois", "3"),
];

const NEGATIONS: [&str; 46] = [
    "not", "no", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "cannot", "without", "except",
    "unless", "dont", "doesnt", "cant", "wont", "isnt", "arent", "nicht", "kein", "keine", "keinen", "keiner",
    "keinem", "nie", "niemals", "ohne", "ne", "non", "pas", "sans", "jamais", "aucun", "sin", "nunca", "nada",
    "ningún", "não", "sem", "senza", "mai", "не", "нет", "без", "ни",
];

/// In scripts that put no blank between words.
const NEGATIONS_WITHIN: [&str; 9] = ["不", "没", "沒", "無", "无", "未", "ない", "ません", "않"];

/// Beginnings of words on either side.
const POLES: [(&str, &[&str], &[&str]); 28] = [
    ("able", &["enabl"], &["disabl"]),
    ("more", &["increas", "more", "rais"], &["decreas", "reduc", "less", "fewer", "lower"]),
    ("make", &["add", "creat", "insert", "install"], &["remov", "delet", "drop", "uninstall", "erase"]),
    ("run", &["start", "launch", "begin"], &["stop", "terminat", "end", "kill"]),
    ("open", &["open"], &["clos", "shut"]),
    ("order", &["before"], &["after"]),
    ("nth", &["first"], &["last"]),
    ("trade", &["buy", "purchas"], &["sell", "sold"]),
    ("in", &["import"], &["export"]),
    ("up", &["upload"], &["download"]),
    ("grade", &["upgrad"], &["downgrad"]),
    ("crypt", &["encrypt", "encod"], &["decrypt", "decod"]),
    ("let", &["allow", "permit", "accept", "grant"], &["deny", "denied", "forbid", "block", "reject", "revok"]),
    ("lock", &["lock"], &["unlock"]),
    ("mount", &["mount"], &["unmount"]),
    ("move", &["push"], &["pull"]),
    ("hand", &["left"], &["right"]),
    ("far", &["min", "minim"], &["max", "maxim"]),
    ("true", &["true"], &["false", "fake"]),
    ("safe", &["safe", "secur"], &["danger", "unsafe", "insecur"]),
    ("good", &["best", "advantag", "benefit", "pros"], &["worst", "disadvantag", "drawback", "cons"]),
    ("day", &["today"], &["yesterday"]),
    ("next", &["tomorrow", "next"], &["previous"]),
    ("legal", &["legal"], &["illegal"]),
    ("time", &["old"], &["new"]),
    ("compass", &["north", "east"], &["south", "west"]),
    ("money", &["lend"], &["borrow"]),
    // "on" is in half of all sentences.
    ("power", &[], &["off"]),
];

const SYMBOLS: &str = "{}[]<>=+*/\\|&^~$€£¥#%@_;";

const QUOTES: [(char, char); 6] = [('"', '"'), ('`', '`'), ('“', '”'), ('„', '“'), ('«', '»'), ('‹', '›')];

impl Facts {
    /// Of a text.
    pub fn of(text: &str) -> Self {
        let mut facts = Self::default();
        for (nth, piece) in text.split("```").enumerate() {
            if nth % 2 == 1 {
                facts.code.push(piece.trim().to_owned());
            } else {
                piece.lines().for_each(|line| facts.line(line));
                facts.quotes(piece);
            }
        }
        for list in [&mut facts.numbers, &mut facts.quoted] {
            list.sort_unstable();
        }
        // To say a name twice is to say no more.
        for list in [&mut facts.names, &mut facts.poles] {
            list.sort_unstable();
            list.dedup();
        }
        facts
    }

    /// A hash that two texts share where they have the same facts.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for list in [&self.numbers, &self.quoted, &self.names, &self.poles, &self.code] {
            put(&(list.len() as u64).to_le_bytes());
            list.iter().for_each(|text| put(text.as_bytes()));
        }
        put(self.symbols.as_bytes());
        put(&(self.negations as u64).to_le_bytes());
        *hash.finalize().as_bytes()
    }

    /// Whether two short answers can say the same: the same numbers, and both denied or neither.
    pub fn agrees(&self, other: &Self) -> bool {
        self.numbers == other.numbers && (self.negations > 0) == (other.negations > 0)
    }

    fn line(&mut self, line: &str) {
        self.symbols.extend(line.chars().filter(|one| SYMBOLS.contains(*one)));
        self.negations += NEGATIONS_WITHIN.iter().map(|word| line.matches(word).count()).sum::<usize>();
        let mut begins = true;
        for token in line.split_whitespace() {
            let word = token.trim_matches(|one: char| !one.is_alphanumeric() && one != '_');
            if !word.is_empty() {
                self.word(word, begins);
            }
            begins = token.ends_with(['.', '!', '?', ':']);
        }
    }

    /// A word; `begins` a sentence.
    fn word(&mut self, word: &str, begins: bool) {
        let word = word.replace('’', "'");
        let word = word.strip_suffix("'s").unwrap_or(&word);
        let lower = word.to_lowercase();
        if word.contains(|one: char| one.is_numeric()) {
            self.numbers.push(lower.replace(',', ""));
            return;
        }
        if lower.ends_with("n't") || NEGATIONS.contains(&&lower[..]) {
            self.negations += 1;
            return;
        }
        if let Some((_, number)) = NUMBERS.iter().find(|(name, _)| *name == lower) {
            self.numbers.push((*number).to_owned());
        }
        if let Some(pole) = pole(&lower) {
            self.poles.push(pole);
        }
        if is_name(word, begins) {
            self.names.push(word.to_owned());
        }
    }

    fn quotes(&mut self, text: &str) {
        let mut rest = text;
        while let Some((start, open, close)) = first_quote(rest) {
            let inner = &rest[start + open.len_utf8()..];
            let Some(end) = inner.find(close) else {
                rest = inner;
                continue;
            };
            self.quoted.push(inner[..end].trim().to_owned());
            rest = &inner[end + close.len_utf8()..];
        }
    }
}

fn first_quote(text: &str) -> Option<(usize, char, char)> {
    text.char_indices().find_map(|(at, one)| {
        let (open, close) = QUOTES.iter().find(|(open, _)| *open == one)?;
        Some((at, *open, *close))
    })
}

fn pole(lower: &str) -> Option<String> {
    // Of short stems nothing but the word: there are too many others that begin so.
    let is = |stem: &&str| match lower.strip_prefix(*stem) {
        Some(ending) if stem.len() <= 3 => matches!(ending, "" | "s" | "ed"),
        Some(ending) => ending.len() <= 4,
        None => false,
    };
    POLES.iter().find_map(|(name, one, other)| {
        let side = if one.iter().any(is) { '+' } else { other.iter().any(is).then_some('-')? };
        Some(format!("{name}{side}"))
    })
}

fn is_name(word: &str, begins: bool) -> bool {
    let mut characters = word.chars();
    let first = characters.next().is_some_and(char::is_uppercase);
    let own = matches!(word, "I" | "I'm" | "I'd" | "I'll" | "I've");
    let within = characters.any(|one| one.is_uppercase() || matches!(one, '_' | '.' | ':' | '/' | '@'));
    !own && (within || word.starts_with('_') || (first && !begins))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(one: &str, other: &str) -> bool {
        let (one, other) = (Facts::of(one), Facts::of(other));
        assert_eq!(one == other, one.hash() == other.hash());
        one == other
    }

    #[test]
    fn classic_false_hits() {
        for (one, other) in [
            ("what is 10 plus 5", "what is 10 plus 6"),
            ("give me two examples", "give me three examples"),
            ("is this safe to eat", "is this not safe to eat"),
            ("you can do it", "you can't do it"),
            ("what is the capital of France", "what is the capital of Germany"),
            ("translate \"good morning\"", "translate \"good night\""),
            ("what does getUser do", "what does setUser do"),
            ("explain max_tokens", "explain top_p"),
            ("how do I enable logging", "how do I disable logging"),
            ("how do I encrypt a file", "how can I decrypt a file"),
            ("what comes before lunch", "what comes after lunch"),
            ("how do I turn it on", "how do I turn it off"),
            ("why does `a` fail", "why does `b` fail"),
            ("run this\n```\nx = 1\n```", "run this\n```\nx = 2\n```"),
            ("is a < b", "is a > b"),
            ("这个可以吃吗", "这个不可以吃吗"),
            ("kann ich das essen", "kann ich das nicht essen"),
            ("price in $", "price in €"),
            ("open src/main.rs", "open src/lib.rs"),
        ] {
            assert!(!same(one, other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn what_may_be_said_otherwise() {
        for (one, other) in [
            ("How do I reset my password?", "how can I reset the password"),
            ("What's the capital of France?", "France's capital? What is the capital of France"),
            ("give me two examples", "please give 2 examples"),
            ("it doesn't work", "it does not work"),
            ("costs 1,000 euros", "it costs 1000 euros"),
            ("How do I add a user", "How can I create a user"),
            ("don’t do it", "don't ever do it"),
        ] {
            let (one_facts, other_facts) = (Facts::of(one), Facts::of(other));
            if one.starts_with("What's the capital") {
                // Said at the beginning only it is no name; said within a sentence it is.
                assert_eq!(one_facts.names, other_facts.names);
                continue;
            }
            assert_eq!(one_facts, other_facts, "{one:?} and {other:?}");
        }
    }

    proptest! {
        /// Another number is another text, whatever is around it.
        #[test]
        fn prop_numbers_count(before in "[a-z ]{0,20}", one in 0..1000_u32, other in 0..1000_u32, after in "[a-z ]{0,20}") {
            let text = |number: u32| format!("{before} {number} {after}");
            prop_assert_eq!(same(&text(one), &text(other)), one == other);
        }

        #[test]
        fn prop_nothing_panics(text in "\\PC{0,80}") {
            let facts = Facts::of(&text);
            prop_assert_eq!(facts.clone(), Facts::of(&text));
        }
    }
}
