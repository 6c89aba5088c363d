"""Checks the structure of the source tree: no circular dependencies between files of a crate, and no folder with too many files. (A
`mod.rs` or `lib.rs`, which only declares modules, is not counted.)

A file depends on another one if it names an item that is defined there, by `use` or by a path. Re-exports are followed to the file with
the definition. Files are read as text, without their inner test modules.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_FILES = 15

# Folders that may have more files, with the reason.
FLAT = {
    "coordinator/web": "the web page's modules import each other by file name, and the browser requests them by it",
    "tests/tests": "cargo builds a program from each file",
    "tests/bench": "each file is a separate program",
}

# Comments, string literals and character literals.
WORDS = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\])'""", re.DOTALL
)
TEST = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?(?:mod\s+\w+\s*([;{])|use [^;]*(;))")
USE = re.compile(r"^[ \t]*(pub(?:\([^)]*\))? )?use\s+([\w:{][^;]*);", re.MULTILINE)
MODULE = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))? )?mod\s+(\w+);", re.MULTILINE)
DEFINITION = re.compile(r"\b(?:struct|enum|trait|fn|const|static|type|union|macro_rules!)\s+(\w+)")
PATH = re.compile(r"(?<![:\w.])\w+(?:::\w+)+")


def plain(text):
    """`text` without comments, contents of string literals, and tests."""
    text = WORDS.sub(lambda found: " " if found[0].startswith("/") else '""', text)
    while found := TEST.search(text):
        end = found.end()
        depth = 1 if found[1] == "{" else 0
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[: found.start()] + text[end:]
    return text


def leaves(tree, prefix=()):
    """The paths of a `use` tree, each with the name that it defines."""
    parts, depth = [""], 0
    for letter in tree:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    for part in filter(None, map(str.strip, parts)):
        head, brace, rest = part.partition("{")
        if brace:
            yield from leaves(rest.rpartition("}")[0], prefix + segments(head))
        else:
            path, _, name = part.partition(" as ")
            path = prefix + segments(path)
            yield path, name.strip() or path[-1]


def segments(text):
    return tuple(filter(None, map(str.strip, text.split("::"))))


class Crate:
    """The modules of one crate, by module path."""

    def __init__(self, root):
        self.files, self.uses, self.paths, self.defined = {}, {}, {}, {}
        self.add((), root)

    def add(self, module, file):
        text = plain(file.read_text())
        body = USE.sub("", text)
        self.files[module] = file
        self.uses[module] = [(bool(of[1]), *leaf) for of in USE.finditer(text) for leaf in leaves(of[2])]
        self.paths[module] = [tuple(of[0].split("::")) for of in PATH.finditer(body)]
        self.defined[module] = set(DEFINITION.findall(body))
        below = file.parent if file.name in ("mod.rs", "lib.rs", "main.rs") else file.parent / file.stem
        for name in MODULE.findall(text):
            for child in (below / f"{name}.rs", below / name / "mod.rs"):
                if child.exists():
                    self.add((*module, name), child)

    def absolute(self, module, path):
        """`path` in `module`, resolved to a path from the crate's root; `None` for a path of another crate."""
        if path[0] == "crate":
            return path[1:]
        if path[0] in ("self", "super"):
            while path and path[0] in ("self", "super"):
                module, path = (module[:-1] if path[0] == "super" else module), path[1:]
            return module + path
        return module + path if (*module, path[0]) in self.files else None

    def owner(self, path, seen=()):
        """The module that defines the item `path`; `None` if this crate does not define it."""
        at = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in self.files)
        rest = path[len(at) :]
        if not rest or path in seen:
            return None
        if rest[0] in self.defined[at]:
            return at
        for _, target, name in self.uses[at]:
            if name == rest[0]:
                further = self.absolute(at, target)
                return None if further is None else self.owner(further, (*seen, path))
        return at

    def needs(self, module):
        """The modules that `module` depends on."""
        own = {name: path for _, path, name in self.uses[module]}
        named = [path for handed_on, path, _ in self.uses[module] if not handed_on]
        for path in self.paths[module]:
            named.append(own[path[0]] + path[1:] if path[0] in own else path)
        found = (self.absolute(module, path) for path in named if path)
        return {owner for path in found if path is not None and (owner := self.owner(path)) not in (None, module)}

    def circles(self):
        """Sets of modules that depend on each other in a circle: strongly connected components (Tarjan 1972)."""
        arrows = {module: self.needs(module) for module in self.files}
        number, low, stack, circles = {}, {}, [], []

        def visit(module):
            number[module] = low[module] = len(number)
            stack.append(module)
            for other in arrows[module]:
                if other not in number:
                    visit(other)
                if other in stack:
                    low[module] = min(low[module], low[other])
            if low[module] == number[module]:
                circle = [stack.pop()]
                while circle[-1] != module:
                    circle.append(stack.pop())
                if len(circle) > 1:
                    circles.append((sorted(circle), arrows))

        for module in self.files:
            if module not in number:
                visit(module)
        return circles


def main():
    complaints = []
    for manifest in sorted(ROOT.glob("**/Cargo.toml")):
        if "target" in manifest.relative_to(ROOT).parts:
            continue
        roots = [manifest.parent / "src" / name for name in ("lib.rs", "main.rs")]
        for root in filter(Path.exists, roots):
            crate = Crate(root)
            for circle, arrows in crate.circles():
                complaints.append(f"{root.relative_to(ROOT)}: these files depend on each other in a circle:")
                for module in circle:
                    for other in sorted(arrows[module] & set(circle)):
                        names = ("::".join(path) or "the root" for path in (module, other))
                        complaints.append("    {} depends on {}".format(*names))
    sources = (file for kind in ("rs", "py", "js", "cpp", "h") for file in ROOT.glob(f"**/*.{kind}"))
    folders = {}
    for file in sources:
        place = file.relative_to(ROOT).parent
        if file.name in ("mod.rs", "lib.rs"):
            continue
        if place.parts and place.parts[0] not in ("target", ".git") and "target" not in place.parts:
            folders.setdefault(place.as_posix(), []).append(file)
    for place, files in sorted(folders.items()):
        if len(files) > MOST_FILES and place not in FLAT:
            complaints.append(f"{place}: {len(files)} files, but a folder may have {MOST_FILES}; group them in subfolders")
    for place, why in FLAT.items():
        if len(folders.get(place, [])) <= MOST_FILES:
            complaints.append(f"{place}: it has at most {MOST_FILES} files; remove its exception ({why}) from `FLAT`")
    print("\n".join(complaints) or "no circular dependencies between files, and no folder with too many files")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
