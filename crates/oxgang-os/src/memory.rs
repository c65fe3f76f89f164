//! How much memory a process has, and whether the kernel has ended processes for want of it.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that the process has in RAM, pages that it shares counted in full; `None` if
/// it has ended. Cheap: the kernel keeps the count.
#[must_use]
pub fn resident(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The same with each shared page counted in parts, so that what a fork has from its parent does
/// not count as its own. The kernel looks at every page for it: some milliseconds per gigabyte.
/// `None` if the kernel does not tell.
#[must_use]
pub fn proportional(pid: i32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// The most that [`resident`] has ever been.
#[must_use]
pub fn peak(pid: i32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(number * 1024)
}

/// Watches the kernel's count of processes that it killed for want of memory: in this process's
/// control group if that is counted (version 2, or 1), else on the whole machine.
#[derive(Debug)]
pub struct OutOfMemory {
    file: Option<(PathBuf, &'static str)>,
    seen: u64,
}

impl OutOfMemory {
    /// Counts from now on.
    #[must_use]
    pub fn watch() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::at(places(Path::new("/sys/fs/cgroup"), &groups))
    }

    fn at(places: Vec<(PathBuf, &'static str)>) -> Self {
        let found = places.into_iter().find_map(|(path, name)| {
            let count = count(&path, name)?;
            Some(((path, name), count))
        });
        match found {
            Some((file, seen)) => Self { file: Some(file), seen },
            None => Self { file: None, seen: 0 },
        }
    }

    /// Kills since the last look; `None` if nobody counts.
    pub fn look(&mut self) -> Option<u64> {
        let (path, name) = self.file.as_ref()?;
        let now = count(path, name)?;
        let fresh = now.saturating_sub(self.seen);
        self.seen = now;
        Some(fresh)
    }
}

/// Where the count may be: the group's own file, then, as in a container that sees its group as
/// the root, the root's, then the machine's.
fn places(root: &Path, groups: &str) -> Vec<(PathBuf, &'static str)> {
    let mut places = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            places.extend([
                (root.join(path).join("memory.events"), "oom_kill "),
                (root.join("unified").join(path).join("memory.events"), "oom_kill "),
                (root.join("memory.events"), "oom_kill "),
            ]);
        } else if controllers.split(',').any(|one| one == "memory") {
            places.extend([
                (root.join("memory").join(path).join("memory.oom_control"), "oom_kill "),
                (root.join("memory/memory.oom_control"), "oom_kill "),
            ]);
        }
    }
    places.push((PathBuf::from("/proc/vmstat"), "oom_kill "));
    places
}

fn count(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        // a child would have its share of the pages
        let _alone = crate::fork::FORKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pid = std::process::id() as i32;
        let page = vec![1_u8; 32 << 20];
        let resident = resident(pid).unwrap();
        assert!(resident > page.len() as u64, "{resident}");
        assert!(peak(pid).unwrap() >= resident - (1 << 20));
        if let Some(proportional) = proportional(pid) {
            assert!(proportional > page.len() as u64);
        }
        assert_eq!(super::resident(0), None);
    }

    #[test]
    fn the_kernels_kills_are_counted_in_either_version_of_control_groups() {
        let root = std::env::temp_dir().join(format!("oxgang-oom-{}", std::process::id()));
        for (groups, file) in [
            ("0::/a/b\n", "a/b/memory.events"),
            ("0::/a/b\n", "memory.events"),
            ("4:cpu,memory:/c\n0::/\n", "memory/c/memory.oom_control"),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "low 0\noom 5\noom_kill 3\noom_group_kill 9\n").unwrap();
            let mut watch = OutOfMemory::at(places(&root, groups));
            assert_eq!(watch.file.as_ref().unwrap().0, path);
            assert_eq!(watch.look(), Some(0));
            fs::write(&path, "oom_kill 5\n").unwrap();
            assert_eq!((watch.look(), watch.look()), (Some(2), Some(0)));
            fs::remove_dir_all(&root).unwrap();
        }
        assert_eq!(OutOfMemory::at(Vec::new()).look(), None);
    }
}
