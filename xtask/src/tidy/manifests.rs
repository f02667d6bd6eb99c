//! The rules on Cargo.toml files: which crate may depend on which of ours.

use super::{
    Violation,
    rules::{MAY_DEPEND_ON, PACKAGES},
};

pub(super) fn check(file: &str, manifest: &str) -> Vec<Violation> {
    let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(of, _)| *of == file) else {
        return Vec::new();
    };
    dependencies(manifest)
        .into_iter()
        .filter(|(_, name)| PACKAGES.contains(name) && !allowed.contains(name))
        .map(|(line, name)| Violation {
            file: file.to_owned(),
            line,
            rule: "crate-order",
            advice: match allowed {
                [] => format!("`{name}`: this crate depends on none of ours"),
                _ => format!("`{name}`: of ours this crate may only use {}", allowed.join(", ")),
            },
        })
        .collect()
}

/// Names in all sections of dependencies, with their lines; renamed ones by their real name.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut section = "";
    let mut found = Vec::new();
    for (line, text) in (1..).zip(manifest.lines()) {
        let text = text.trim();
        if let Some(header) = text.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // [dependencies.NAME]
            if let Some((table, name)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
            {
                found.push((line, name));
            }
        } else if section.ends_with("dependencies") && !text.starts_with('#') {
            let name = text.split(['.', '=', ' ']).next().unwrap_or_default();
            found.extend((!name.is_empty()).then_some((line, name)));
        }
        if section.contains("dependencies") {
            found.extend(renamed(text).map(|name| (line, name)));
        }
    }
    found
}

/// The NAME of `package = "NAME"`.
fn renamed(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("package")?;
    after.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_depend_are_seen() {
        let manifest = "\
[package]
name = \"flowgate\"

[dependencies]
# flowgate = 1
anyhow.workspace = true
xtask = { path = \"../xtask\" }
other = { package = \"lb-ebpf\", path = \"../lb-ebpf\" }

[dependencies.flowgate-tests]
path = \"../tests\"

[target.'cfg(unix)'.dev-dependencies]
lb-common = \"1\"
";
        let all = dependencies(manifest);
        assert_eq!(
            all,
            [
                (6, "anyhow"),
                (7, "xtask"),
                (8, "other"),
                (8, "lb-ebpf"),
                (10, "flowgate-tests"),
                (14, "lb-common"),
            ]
        );
        let lines = |file| check(file, manifest).iter().map(|v| v.line).collect::<Vec<_>>();
        assert_eq!(lines("lb-userspace/Cargo.toml"), [7, 8, 10]);
        assert_eq!(lines("lb-common/Cargo.toml"), [7, 8, 10, 14]);
        assert_eq!(lines("elsewhere/Cargo.toml"), Vec::<usize>::new());
    }
}
