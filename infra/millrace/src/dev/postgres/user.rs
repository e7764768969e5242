//! Whom the server runs as: Postgres refuses root.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Users that root hands the server to, the best first.
const SERVER_USERS: [&str; 2] = ["postgres", "nobody"];

/// A user of this system other than root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Whom the server must run as; none if it can be whoever runs this.
    pub fn of_server() -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let user = SERVER_USERS
            .iter()
            .find_map(|name| in_passwd(&passwd, name));
        user.map(Some).context(
            "Postgres refuses to run as root, and /etc/passwd has no user postgres or nobody: \
             create one (useradd --system postgres) or run this as another user",
        )
    }

    /// Whether this user can reach what is in a directory. The mode bits decide; access lists are
    /// not looked at, so the answer may be a needless no.
    pub fn may_enter(self, directory: &Path) -> bool {
        let Ok(directory) = directory.canonicalize() else {
            return false;
        };
        directory.ancestors().all(|step| {
            std::fs::metadata(step)
                .is_ok_and(|found| self.may_search(found.uid(), found.gid(), found.mode()))
        })
    }

    fn may_search(self, uid: u32, gid: u32, mode: u32) -> bool {
        let bit = if uid == self.uid {
            0o100
        } else if gid == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

fn in_passwd(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        Some(User {
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:9:9::/:\n\
                      broken:x\npostgres:x:105:110:a,b:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(
            in_passwd(passwd, "postgres"),
            Some(User { uid: 105, gid: 110 })
        );
        for name in ["broken", "nobody", ""] {
            assert_eq!(in_passwd(passwd, name), None, "{name}");
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let user = User { uid: 7, gid: 8 };
        for (uid, gid, mode, expected) in [
            (7, 1, 0o700, true),
            (7, 8, 0o677, false),
            (1, 8, 0o710, true),
            (1, 8, 0o701, false),
            (1, 1, 0o701, true),
            (1, 1, 0o750, false),
        ] {
            assert_eq!(
                user.may_search(uid, gid, mode),
                expected,
                "{uid} {gid} {mode:o}"
            );
        }
    }
}
