// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in its source a kernel was: the lines of the places that it names by function, offset and size.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use addr2line::Context;
use gimli::{Dwarf, EndianRcSlice, RunTimeEndian};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadCache, SectionKind};

use crate::VmError;

/// A function that every kernel has, and the file of the kernel's tree that it stands in.
const LANDMARK: (&str, &str) = ("start_kernel", "init/main.c");

/// The functions of a kernel's image, and the lines that its instructions come from.
pub struct Symbols {
    functions: HashMap<String, Vec<Function>>,
    lines: Context<EndianRcSlice<RunTimeEndian>>,
    /// What stands before the names of files of the kernel's tree.
    tree: String,
}

/// Where a function is; up to the next one, as the kernel tells sizes.
#[derive(Debug, Clone, Copy)]
struct Function {
    address: u64,
    size: u64,
}

/// A line of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The function that it is part of.
    pub function: String,
    /// The file, from the top of the kernel's tree.
    pub file: String,
    /// Its number.
    pub number: u32,
}

impl Symbols {
    /// Reads those of the image `vmlinux`.
    ///
    /// # Errors
    /// The file cannot be read or is not an ELF file. One without lines is none.
    pub fn of(vmlinux: &Path) -> Result<Self, VmError> {
        let file = File::open(vmlinux).map_err(VmError::io("cannot read", vmlinux))?;
        let refuse = |reason: String| VmError::Config {
            path: vmlinux.to_owned(),
            reason,
        };
        let cache = ReadCache::new(file);
        let image = object::File::parse(&cache)
            .map_err(|error| refuse(format!("it is no ELF file: {error}")))?;
        let endian = if image.is_little_endian() {
            RunTimeEndian::Little
        } else {
            RunTimeEndian::Big
        };
        let section = |name: &str| {
            let section = image.section_by_name(name);
            let data = section.map(|section| section.data()).transpose()?;
            Ok::<_, object::Error>(EndianRcSlice::new(
                Rc::from(data.unwrap_or_default()),
                endian,
            ))
        };
        let dwarf = Dwarf::load(|id| section(id.name()))
            .map_err(|error| refuse(format!("its lines cannot be read: {error}")))?;
        let lines = Context::from_dwarf(dwarf)
            .map_err(|error| refuse(format!("its lines cannot be understood: {error}")))?;
        let mut symbols = Self {
            functions: functions(&image),
            lines,
            tree: String::new(),
        };
        symbols.tree = symbols.tree_of_landmark().unwrap_or_default();
        Ok(symbols)
    }

    /// The line of the instruction at `offset` in the function of this name and size. Where the compiler
    /// put functions into others the innermost comes first, and the one that has the name last. Nothing
    /// where the image does not tell, or has several such functions.
    #[must_use]
    pub fn lines(&self, function: &str, offset: u64, size: u64) -> Vec<Line> {
        let known = self.functions.get(function).map_or(&[][..], Vec::as_slice);
        let mut fitting = known.iter().filter(|known| known.size == size);
        let found = match (fitting.next(), fitting.next(), known) {
            (Some(found), None, _) | (None, None, [found]) if offset < found.size => found,
            _ => return Vec::new(),
        };
        self.lines_at(found.address + offset, function)
            .unwrap_or_default()
    }

    fn lines_at(&self, address: u64, symbol: &str) -> Option<Vec<Line>> {
        let mut frames = self.lines.find_frames(address).skip_all_loads().ok()?;
        let mut lines = Vec::new();
        while let Some(frame) = frames.next().ok()? {
            // What the compiler made up itself has no line.
            let Some((Some(file), Some(number))) =
                frame.location.map(|place| (place.file, place.line))
            else {
                continue;
            };
            let function = frame
                .function
                .as_ref()
                .map(addr2line::FunctionName::raw_name);
            lines.push(Line {
                function: match function {
                    Some(Ok(name)) => name.into_owned(),
                    _ => symbol.to_owned(),
                },
                file: self.short(file).to_owned(),
                number,
            });
        }
        Some(lines)
    }

    /// The name of a file of the kernel's tree from its top, and of one that make wrote, as `./include/…`,
    /// from the top of the output directory.
    fn short<'a>(&self, file: &'a str) -> &'a str {
        let in_tree = file.strip_prefix(&self.tree);
        in_tree.unwrap_or_else(|| file.rsplit("/./").next().unwrap_or(file))
    }

    fn tree_of_landmark(&self) -> Option<String> {
        let (function, file) = LANDMARK;
        let start = self.functions.get(function)?.first()?;
        let lines = self.lines_at(start.address, function)?;
        let tree = lines.last()?.file.strip_suffix(file)?;
        Some(tree.to_owned())
    }
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.functions.len();
        write!(formatter, "Symbols of {count} functions of {}", self.tree)
    }
}

/// The functions of `image` by name.
fn functions<'a>(image: &object::File<'a, &'a ReadCache<File>>) -> HashMap<String, Vec<Function>> {
    let is_code = |index| {
        let section = image.section_by_index(index);
        section.is_ok_and(|section| section.kind() == SectionKind::Text)
    };
    let mut named: Vec<(u64, &str)> = image
        .symbols()
        .filter(|symbol| symbol.section_index().is_some_and(is_code))
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .filter(|(_, name)| !name.is_empty())
        .collect();
    named.sort_unstable();
    let mut functions: HashMap<String, Vec<Function>> = HashMap::new();
    let mut next = u64::MAX;
    let mut end = u64::MAX;
    for (address, name) in named.into_iter().rev() {
        if address != next {
            (next, end) = (address, next);
        }
        functions
            .entry(name.to_owned())
            .or_default()
            .push(Function {
                address,
                size: end - address,
            });
    }
    functions
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Two files with a function of one name each, one of which has another put into it.
    const SOURCES: [(&str, &str); 3] = [
        (
            "init/main.c",
            "int twice_a(int), twice_b(int);\n\
             int start_kernel(int x)\n{\n\treturn twice_a(x) + twice_b(x);\n}\n\
             int main(int count, char **words)\n{\n\treturn start_kernel(count);\n}\n",
        ),
        (
            "net/a.c",
            "volatile int seen;\n\
             static int __attribute__((noinline)) same(int x)\n{\n\tseen = x;\n\treturn x + seen;\n}\n\
             int twice_a(int x)\n{\n\treturn same(x) + same(seen);\n}\n",
        ),
        (
            "net/b.c",
            "extern volatile int seen;\n\
             static inline __attribute__((always_inline)) int within(int x)\n{\n\treturn seen * x;\n}\n\
             static int __attribute__((noinline)) same(int x)\n{\n\tint sum = seen;\n\tfor (; x; x--)\n\
             \t\tsum += within(x) / (sum + 1);\n\treturn sum;\n}\n\
             int twice_b(int x)\n{\n\treturn same(x) + same(seen);\n}\n",
        ),
    ];

    /// An image of these, with lines or without.
    fn image(debug: &str) -> (tempfile::TempDir, Symbols) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in SOURCES {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let image = directory.path().join("vmlinux");
        let built = Command::new("cc")
            .args(["-O1", "-no-pie", debug, "-o"])
            .arg(&image)
            .args(SOURCES.map(|(name, _)| directory.path().join(name)))
            .status()
            .unwrap();
        assert!(built.success());
        let symbols = Symbols::of(&image).unwrap();
        (directory, symbols)
    }

    fn told(lines: &[Line]) -> Vec<(&str, &str, u32)> {
        lines
            .iter()
            .map(|line| (&*line.function, &*line.file, line.number))
            .collect()
    }

    #[test]
    fn functions_of_one_name_are_told_apart_by_size() {
        let (_directory, symbols) = image("-g");
        let same = &symbols.functions["same"];
        assert_eq!(same.len(), 2);
        let mut files = Vec::new();
        for function in same {
            let lines = symbols.lines("same", 0, function.size);
            files.extend(lines.last().map(|line| line.file.clone()));
        }
        files.sort();
        assert_eq!(files, ["net/a.c", "net/b.c"]);
        assert_eq!(symbols.lines("same", 0, 1), [], "neither has this size");
    }

    #[test]
    fn a_function_that_was_put_into_another_is_told_before_it() {
        let (_directory, symbols) = image("-g");
        let larger = symbols.functions["same"]
            .iter()
            .max_by_key(|same| same.size);
        let size = larger.unwrap().size;
        let all: Vec<_> = (0..size)
            .map(|offset| symbols.lines("same", offset, size))
            .collect();
        let within = all
            .iter()
            .find(|lines| lines.len() == 2)
            .expect("an instruction of it");
        assert_eq!(
            told(within),
            [("within", "net/b.c", 4), ("same", "net/b.c", 10)]
        );
    }

    #[test]
    fn a_name_that_is_the_only_one_needs_no_size() {
        let (_directory, symbols) = image("-g");
        let lines = symbols.lines("twice_a", 0, 0xffff);
        assert_eq!(told(&lines), [("twice_a", "net/a.c", 8)]);
        assert_eq!(
            symbols.lines("twice_a", 0xfff, 0xffff),
            [],
            "behind its end"
        );
        assert_eq!(symbols.lines("thrice", 0, 1), []);
    }

    #[test]
    fn an_image_without_lines_tells_none_and_what_is_no_image_is_refused() {
        let (directory, symbols) = image("-g0");
        assert!(symbols.functions.contains_key("start_kernel"));
        assert_eq!(symbols.lines("start_kernel", 0, 0xffff), []);
        let text = directory.path().join("init/main.c");
        let error = Symbols::of(&text).unwrap_err().to_string();
        assert!(error.contains("init/main.c: it is no ELF file"), "{error}");
        let missing = Symbols::of(&directory.path().join("gone")).unwrap_err();
        assert!(matches!(missing, VmError::Io { .. }), "{missing}");
    }
}
