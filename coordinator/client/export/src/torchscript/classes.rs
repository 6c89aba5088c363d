//! The heads of the classes in a module's code: which are modules, and what their parameters and buffers are called.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::archive::Archive;
use super::error::TorchScriptError;

/// More is not the code of a module: its text is unpacked into memory.
const CODE_BYTES: u64 = 64 << 20;

/// The head of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Class {
    /// An `nn.Module`, unlike plain classes and named tuples.
    pub(super) is_module: bool,
    /// Names of parameters and buffers.
    pub(super) tensors: Vec<String>,
    /// A method `__setstate__`, which would fill an instance.
    pub(super) fills_itself: bool,
}

/// The classes of an archive, read when they are asked for.
#[derive(Debug)]
pub(super) struct Classes<'a> {
    archive: &'a mut Archive,
    /// Code by file.
    code: BTreeMap<String, String>,
}

impl<'a> Classes<'a> {
    pub(super) fn new(archive: &'a mut Archive) -> Self {
        Self { archive, code: BTreeMap::new() }
    }

    /// The class `name` of `module`, such as `Linear` of `__torch__.torch.nn.modules.linear`.
    pub(super) fn class(&mut self, module: &str, name: &str) -> Result<Class, TorchScriptError> {
        // Classes of libtorch itself, such as packed weights, have no code here.
        if module.starts_with("__torch__.torch.classes") {
            return Ok(Class::default());
        }
        let part = format!("code/{}.py", module.replace('.', "/"));
        let code = match self.code.entry(part.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let bytes = self.archive.read(&part, CODE_BYTES)?;
                let text = String::from_utf8(bytes);
                unknown.insert(text.map_err(|_| TorchScriptError::malformed(&part, "it is not UTF-8"))?)
            }
        };
        head(code, name).ok_or_else(|| TorchScriptError::malformed(&part, format!("it has no class `{name}`")))
    }
}

/// The head of the class `name` in `code`, as libtorch prints it.
fn head(code: &str, name: &str) -> Option<Class> {
    let mut lines = code.lines();
    let bases = lines.find_map(|line| {
        let rest = line.strip_prefix("class ")?.strip_prefix(name)?.strip_suffix(':')?;
        (rest.is_empty() || rest.starts_with('(')).then_some(rest)
    })?;
    let mut class = Class { is_module: bases == "(Module)", ..Class::default() };
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '\t', ')'])) {
        let line = line.trim_start();
        if ["__parameters__ = [", "__buffers__ = ["].iter().any(|list| line.starts_with(list)) {
            class.tensors.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        }
        class.fills_itself |= line.starts_with("def ") && line.contains("__setstate__");
    }
    Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "\
class Net(Module):
  __parameters__ = [\"weight\", \"0\", ]
  __buffers__ = [\"mean\", ]
  weight : Tensor
  def forward(self: __torch__.Net,
    x: Tensor) -> Tensor:
    return torch.linear(x, self.weight, None)

class Network(Module):
  __parameters__ = []
  def __setstate__(self: __torch__.Network,
    state: Tensor) -> NoneType:
    return None
class Pair(NamedTuple):
  x : Tensor
";

    #[test]
    fn a_class_has_its_own_lines_and_no_others() {
        let net = head(CODE, "Net").unwrap();
        let tensors = ["weight", "0", "mean"].map(str::to_owned).to_vec();
        assert_eq!(net, Class { is_module: true, tensors, fills_itself: false });
        assert_eq!(head(CODE, "Network").unwrap(), Class { is_module: true, tensors: Vec::new(), fills_itself: true });
        assert_eq!(head(CODE, "Pair").unwrap(), Class::default());
        assert_eq!(head(CODE, "Ne"), None);
    }
}
