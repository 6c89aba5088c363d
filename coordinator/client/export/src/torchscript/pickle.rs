//! Reads a pickle of libtorch as data: a tree of values in which a call is only noted, never made.
//!
//! The opcodes are those that libtorch's own reader takes. What a value was made of is kept by its place in the bytes, so that a
//! flag or a device can be changed there and all else stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Index of a [`Value`] in its [`Pickle`].
pub(super) type Id = usize;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    /// The byte at `at` is `\x88` for true, `\x89` for false.
    Bool {
        value: bool,
        at: usize,
    },
    Int(i64),
    /// A number that no tensor's place is made of.
    Number,
    Text(String),
    Global {
        module: String,
        name: String,
    },
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// An instance of a class and its state.
    Object {
        class: Id,
        state: Option<Id>,
    },
    /// What `function` would answer for `arguments`.
    Call {
        function: Id,
        arguments: Id,
    },
    /// What lies outside, such as a storage.
    Outside(Id),
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Where a text was written out, and how often it is named.
    texts: BTreeMap<Id, (Range<usize>, usize)>,
}

impl Pickle {
    /// Reads all of `bytes`.
    ///
    /// # Errors
    /// What is wrong and at which byte.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            states: BTreeSet::new(),
            texts: BTreeMap::new(),
        };
        loop {
            let at = reader.at;
            let more = reader.step().map_err(|what| format!("{what} at byte {at}"))?;
            if let Some(root) = more {
                return Ok(Self { values: reader.values, root, texts: reader.texts });
            }
        }
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.value(id) { Some(text) } else { None }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        if let Value::Int(number) = self.value(id) { Some(*number) } else { None }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) = self.value(id) { Some(items) } else { None }
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        if let Value::Global { module, name } = self.value(id) { Some((module, name)) } else { None }
    }

    /// Function and arguments of a call that was noted.
    pub(super) fn call(&self, id: Id) -> Option<((&str, &str), &[Id])> {
        let Value::Call { function, arguments } = self.value(id) else { return None };
        Some((self.global(*function)?, self.tuple(*arguments)?))
    }

    /// The attribute `name` of the object `id`; of two of one name the last one, which libtorch sets last.
    pub(super) fn attribute(&self, id: Id, name: &str) -> Option<Id> {
        let Value::Object { state: Some(state), .. } = self.value(id) else { return None };
        let Value::Dict(pairs) = self.value(*state) else { return None };
        pairs.iter().rev().find(|(key, _)| self.text(*key) == Some(name)).map(|(_, value)| *value)
    }

    /// All that is outside: what was handed to each.
    pub(super) fn outside(&self) -> impl Iterator<Item = Id> {
        self.values.iter().filter_map(|value| if let Value::Outside(what) = value { Some(*what) } else { None })
    }

    /// Where the text `id` stands in the bytes, with its opcode, and how often it is named.
    pub(super) fn place(&self, id: Id) -> Option<(Range<usize>, usize)> {
        self.texts.get(&id).cloned()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
    /// Dictionaries that objects have as their states.
    states: BTreeSet<Id>,
    texts: BTreeMap<Id, (Range<usize>, usize)>,
}

impl Reader<'_> {
    /// Takes one opcode; `Some` is the root at the end.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let begin = self.at;
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => drop(self.take(1)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool { value: opcode == 0x88, at: begin }),
            b'K' => {
                let number = self.take(1)?[0];
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = self.number(2)?;
                self.push(Value::Int(number as i64));
            }
            b'J' => {
                let number = self.number(4)? as u32;
                self.push(Value::Int(number.cast_signed().into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Number);
            }
            b'X' | 0x8d => self.unicode(begin, if opcode == b'X' { 4 } else { 8 })?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global { module, name });
            }
            b'q' | b'r' => self.put(opcode)?,
            b'h' | b'j' => self.get(opcode)?,
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or("the stack is empty")?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.marked()?;
                self.push(Value::List(items));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.marked()?;
                self.push(Value::Dict(pairs(&items)?));
            }
            b'a' | b'e' => self.append(opcode)?,
            b's' | b'u' => self.set(opcode)?,
            0x81 | b'R' | b'b' | b'Q' => self.compose(opcode)?,
            other => return Err(format!("the opcode {other:#04x} is none of libtorch's")),
        }
        Ok(None)
    }

    /// What is made of the values on the stack: an object, a call, an object's state, something outside.
    fn compose(&mut self, opcode: u8) -> Result<(), String> {
        let last = self.pop()?;
        if opcode == b'Q' {
            self.push(Value::Outside(last));
            return Ok(());
        }
        let before = self.pop()?;
        let global = if let Value::Global { module, .. } = &self.values[before] { Some(module.as_str()) } else { None };
        match (opcode, global) {
            (0x81, Some(_)) => self.push(Value::Object { class: before, state: None }),
            (0x81, None) => return Err("what an object is made of is no class".to_owned()),
            // libtorch would make an object of it.
            (b'R', Some(module)) if module.starts_with("__torch__") => {
                return Err("a class is called as a function".to_owned());
            }
            (b'R', Some(_)) => self.push(Value::Call { function: before, arguments: last }),
            (b'R', None) => return Err("what is called is no function".to_owned()),
            _ => {
                let Value::Object { state, .. } = &mut self.values[before] else {
                    return Err("what gets a state is no object".to_owned());
                };
                // libtorch makes a new object of each state.
                if state.replace(last).is_some() {
                    return Err("an object gets a second state".to_owned());
                }
                self.states.insert(last);
                self.stack.push(before);
            }
        }
        Ok(())
    }

    fn append(&mut self, opcode: u8) -> Result<(), String> {
        let more = if opcode == b'e' { self.marked()? } else { vec![self.pop()?] };
        let list = *self.stack.last().ok_or("the stack is empty")?;
        match &mut self.values[list] {
            Value::List(items) => items.extend(more),
            _ => return Err("what is appended to is no list".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, opcode: u8) -> Result<(), String> {
        let more = if opcode == b'u' {
            self.marked()?
        } else {
            let (value, key) = (self.pop()?, self.pop()?);
            vec![key, value]
        };
        let more = pairs(&more)?;
        let dict = *self.stack.last().ok_or("the stack is empty")?;
        // libtorch has read it, and the object has no more of it.
        if self.states.contains(&dict) {
            return Err("an object's state is changed after the object has it".to_owned());
        }
        match &mut self.values[dict] {
            Value::Dict(items) => items.extend(more),
            _ => return Err("what is added to is no dictionary".to_owned()),
        }
        Ok(())
    }

    /// Keeps the value on top under a number.
    fn put(&mut self, opcode: u8) -> Result<(), String> {
        let number = self.number(if opcode == b'q' { 1 } else { 4 })? as u32;
        let top = *self.stack.last().ok_or("the stack is empty")?;
        if let Value::Bool { .. } = self.values[top] {
            return Err("a flag is kept for several places".to_owned());
        }
        // libtorch keeps a number for it, and makes an object of that at each place.
        if let Value::Object { state: None, .. } = self.values[top] {
            return Err("an object is kept before it has a state".to_owned());
        }
        self.memo.insert(number, top);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), String> {
        let number = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
        let id = *self.memo.get(&number).ok_or_else(|| format!("there is no value {number}"))?;
        if let Some((_, named)) = self.texts.get_mut(&id) {
            *named += 1;
        }
        self.stack.push(id);
        Ok(())
    }

    fn unicode(&mut self, begin: usize, width: usize) -> Result<(), String> {
        let length = self.number(width)?;
        let bytes = self.take(usize::try_from(length).map_err(|_| "a text is too long".to_owned())?)?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_owned())?.to_owned();
        self.texts.insert(self.values.len(), (begin..self.at, 1));
        self.push(Value::Text(text));
        Ok(())
    }

    fn long(&mut self) -> Result<(), String> {
        let length = usize::from(self.take(1)?[0]);
        let bytes = self.take(length)?;
        let fill = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        let value = match wide.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            None => Value::Number,
        };
        self.push(value);
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".to_owned());
        }
        Ok(self.stack.pop().expect("it is longer than the floor"))
    }

    /// All since the last mark.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, length: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or("it is cut")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of `width` bytes, of which the low ones come first.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Up to the end of a line.
    fn line(&mut self) -> Result<String, String> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n').ok_or("it is cut")?;
        let line = std::str::from_utf8(self.take(length)?).map_err(|_| "a name is not UTF-8".to_owned())?.to_owned();
        self.take(1)?;
        Ok(line)
    }
}

/// Keys and values that follow each other.
fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    if items.len() % 2 == 1 {
        return Err("a key has no value".to_owned());
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_noted_and_never_made() {
        let pickle = Pickle::read(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.").unwrap();
        let ((module, name), arguments) = pickle.call(pickle.root()).unwrap();
        assert_eq!((module, name, pickle.text(arguments[0])), ("os", "system", Some("true")));
    }

    #[test]
    fn bytes_that_are_no_pickle_of_libtorch_are_refused_by_place() {
        let cases: [(&[u8], &str); 17] = [
            (b"", "it is cut at byte 0"),
            (b"\x80\x02K", "it is cut at byte 2"),
            (b".", "the stack is empty at byte 0"),
            (b"K\x010.", "the opcode 0x30 is none of libtorch's at byte 2"),
            (b"h\x07.", "there is no value 7 at byte 0"),
            (b"}(K\x01u.", "a key has no value"),
            (b"N}b.", "what gets a state is no object"),
            (b"X\xff\xff\xff\xffabc.", "it is cut"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "it is cut"),
            (b"\x88q\x01.", "a flag is kept for several places"),
            (b"c__torch__\nNet\n)\x81q\x01}b.", "an object is kept before it has a state at byte 17"),
            (b"c__torch__\nNet\n)\x81}b}b.", "an object gets a second state at byte 20"),
            (b"}q\x01c__torch__\nNet\n)\x81h\x01bh\x01NNs.", "an object's state is changed after the object has it"),
            (b"}q\x01c__torch__\nNet\n)\x81h\x01bh\x01(NNu.", "an object's state is changed after the object has it"),
            (b"c__torch__\nNet\n}R.", "a class is called as a function"),
            (b"K\x00)R.", "what is called is no function"),
            (b"K\x00)\x81.", "what an object is made of is no class"),
        ];
        for (bytes, words) in cases {
            let refused = Pickle::read(bytes).unwrap_err();
            assert!(refused.contains(words), "{bytes:?}: {refused}");
        }
    }

    #[test]
    fn whole_numbers_have_all_their_forms() {
        for (bytes, number) in [
            (&b"K\xff."[..], 255),
            (b"M\0\x02.", 512),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\0.", 0),
            (b"\x8a\x02\0\x80.", -32_768),
            (b"\x8a\x05\0\0\0\0\x01.", 1 << 32),
        ] {
            let pickle = Pickle::read(bytes).unwrap();
            assert_eq!(pickle.int(pickle.root()), Some(number), "{bytes:?}");
        }
    }
}
