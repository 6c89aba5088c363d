//! The protocol of a URL, as git determines it.

/// Protocols that git itself supports. Other protocols are separate programs (`git-remote-NAME`), and `ext` runs any command.
pub const PROTOCOLS: [&str; 7] = ["file", "ftp", "ftps", "git", "http", "https", "ssh"];

/// The protocol that git uses for `url`, with its name in `GIT_ALLOW_PROTOCOL`: `file` for a path, `ssh` for `host:path`, and the
/// name of the program for `name::address`.
///
/// The rules are those of `transport_get` and `url_is_local_not_ssh` in git 2.x.
pub fn protocol(url: &str) -> &str {
    let of_scheme = |at: usize, byte: u8| byte.is_ascii_alphanumeric() || (at > 0 && b"+-.".contains(&byte));
    let end = url.bytes().enumerate().find(|&(at, byte)| !of_scheme(at, byte)).map_or(url.len(), |(at, _)| at);
    let (scheme, rest) = url.split_at(end);
    if rest.starts_with("::") {
        return scheme;
    }
    if !scheme.is_empty() && rest.starts_with("://") {
        return if matches!(scheme, "git+ssh" | "ssh+git") { "ssh" } else { scheme };
    }
    let before_path = url.split('/').next().unwrap_or(url);
    if before_path.contains(':') { "ssh" } else { "file" }
}

/// `url` without credentials: `https://user:token@host/x?token=..` loses user, token and query; `user:password@host:x`, the form of
/// ssh, loses the password.
pub(super) fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or(url);
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or(rest);
            let bare = match host.rsplit_once('@') {
                // For ssh the user name is needed, and it is no secret.
                Some((user, host)) if scheme.contains("ssh") => {
                    format!("{}@{host}", user.split(':').next().unwrap_or(user))
                }
                Some((_, host)) => host.to_owned(),
                None => host.to_owned(),
            };
            format!("{scheme}://{bare}{}", &rest[host.len()..])
        }
        None => match url.split_once('@') {
            Some((user, rest)) if !user.contains('/') => {
                format!("{}@{rest}", user.split(':').next().unwrap_or(user))
            }
            _ => url.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::command::git;

    const OF_GIT: [(&str, &str); 14] = [
        ("https://example.org/r.git", "https"),
        ("ssh://git@example.org:22/r.git", "ssh"),
        ("git+ssh://example.org/r.git", "ssh"),
        ("git@example.org:r.git", "ssh"),
        ("example.org:r.git", "ssh"),
        ("[::1]:r.git", "ssh"),
        ("/srv/r.git", "file"),
        ("../r.git", "file"),
        ("./a:b", "file"),
        ("r", "file"),
        ("file:///srv/r.git", "file"),
        ("ext::touch x", "ext"),
        ("ftp::https://example.org/r", "ftp"),
        ("a-b.c://example.org/r", "a-b.c"),
    ];

    #[test]
    fn the_protocol_of_a_url_is_the_one_that_git_asks_leave_for() {
        for (url, expected) in OF_GIT {
            assert_eq!(protocol(url), expected, "{url}");
            // If all other protocols are allowed, git rejects this one by name, before it uses the address.
            let others: Vec<&str> = PROTOCOLS.into_iter().filter(|&one| one != expected).collect();
            let output =
                git().args(["ls-remote", "--", url]).env("GIT_ALLOW_PROTOCOL", others.join(":")).output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(words.contains(&format!("transport '{expected}' not allowed")), "{url}: {words}");
        }
        assert_eq!((protocol("::x"), protocol("HTTPS://x/y"), protocol("")), ("", "HTTPS", "file"));
    }

    #[test]
    fn no_password_of_a_remote_is_kept() {
        for (url, kept) in [
            ("https://me:secret@example.org/r.git", "https://example.org/r.git"),
            ("https://example.org/r.git?access_token=secret", "https://example.org/r.git"),
            ("https://example.org/r.git#secret", "https://example.org/r.git"),
            ("ssh://git:secret@example.org:22/r.git", "ssh://git@example.org:22/r.git"),
            ("git:secret@example.org:r.git", "git@example.org:r.git"),
            ("git@example.org:r.git", "git@example.org:r.git"),
            ("/srv/a@b/r.git", "/srv/a@b/r.git"),
            ("../r.git", "../r.git"),
        ] {
            assert_eq!(without_credentials(url), kept);
        }
    }
}
