package ignore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/backup/source/files/ignore"
	"github.com/cofferbackup/coffer/internal/testkit"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		patterns string // one a line
		path     string // ends in "/" for a directory
		want     bool
	}{
		{"", "a", false},
		{"# a\n\na", "a", true},
		{"\\#a", "#a", true},
		{"\\!a", "!a", true},
		{"*.o", "x.o", true},
		{"*.o", "d/x.o", true},
		{"*.o\n!keep.o", "d/keep.o", false},
		{"!keep.o\n*.o", "d/keep.o", true},
		{"/a", "a", true},
		{"/a", "d/a", false},
		{"d/a", "d/a", true},
		{"d/a", "x/d/a", false},
		{"build/", "build", false},
		{"build/", "build/", true},
		{"build/", "x/build/", true},
		{"a/*", "a/b", true},
		{"a/*", "a/b/c", false},
		{"**/b", "b", true},
		{"**/b", "x/y/b", true},
		{"a/**/b", "a/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**", "a/x/y", true},
		{"a/**", "a/", false},
		{"a?c", "abc", true},
		{"x/a?c", "x/a/c", false},
		{"[a-c]x", "bx", true},
		{"[!a-c]x", "bx", false},
		{"[[:digit:]]", "7", true},
		{"[]]", "]", true},
		{"[", "[", false},
		{"a\\", "a", false},
		{"a\\", "a\\", false},
		{"a  ", "a", true},
		{"a\\ ", "a ", true},
		{"\xff*", "\xff\xfe", true},
		{"?", "\xff", true},
		{"?", "é", false},
	}
	for _, tt := range tests {
		m := ignore.New(strings.Split(tt.patterns, "\n"))
		path, kind := tt.path, ignore.Other
		if p, ok := strings.CutSuffix(path, "/"); ok {
			path, kind = p, ignore.Dir
		}
		dir, name := "", path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			dir, name = path[:i], path[i+1:]
		}
		if got := m.Match(dir, name, kind); got != tt.want {
			t.Errorf("patterns %q: %q left out: %v, want %v", tt.patterns, tt.path, got, tt.want)
		}
	}
}

func TestLines(t *testing.T) {
	got := ignore.Lines([]byte("\xef\xbb\xbfa\r\n\nb \nc"))
	if want := []string{"a", "", "b ", "c"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("lines %q, want %q", got, want)
	}
}

func TestNoPatternsCostNothing(t *testing.T) {
	if m := ignore.New([]string{"", "# comment", "/", "!"}); m != nil {
		t.Error("a matcher that can match nothing is not nil")
	}
}

// The tree that git and Match are asked about; "/" ends a directory.
var treePaths = []string{
	"a", "b", "ab", "abc", "a.b", "b.c", ".a", "a b", "a ", "-", "]", "[", "[a]", "!a", "#a", `\`, `a\`, `a\b`, "*", "a*", "**", "?",
	"\xff", "a\xff", "\v", "\f", "\r", "\n", "A", "B", "aa", "aab", "^", "a-c", ":", "é",
	"d/", "d/a", "d/b", "d/ab", "d/a.b", "d/d/", "d/d/a", "d/d/b", "d/d/d/", "d/d/d/a", "d/d/d/ab", "d/c/", "d/c/a", "d/c/d/", "d/c/d/b",
	"c/", "c/a", "c/d/", "c/d/a", "c/d/c/", "c/d/c/b", "da/", "da/b", "dd/", "dd/d/", "dd/d/a",
}

// randomPattern puts together pieces of which many pairs mean something.
func randomPattern(r *rand.Rand) string {
	pieces := []string{
		"a", "b", "c", "d", "d", "*", "*", "**", "***", "/", "/", "/", "?", "[", "]", "[ab]", "[!a]", "[^b]", "[a-c]", "[c-a]", "[]a]",
		"[!]a]", "[a-]", "[-a]", "[\\]]", "[a\\-c]", "[[:alpha:]]", "[[:punct:]]", "[[:space:]]", "[![:cntrl:]]", "[[:graph:]b]", "[[:x:]]", "[[:alpha]", "[[:",
		"[a/b]", "[a-\\c]", "[--b]", "\\", "\\a", "\\*", "\\/", "\\ ", " ", ".", "\xff", "-", "!", "**/", "/**", "/**/", "]", "d/", "d/d",
	}
	var b strings.Builder
	if r.IntN(6) == 0 {
		b.WriteByte('!')
	}
	for range 1 + r.IntN(5) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// leftOut is what a walk with m leaves out of treePaths, with all below.
func leftOut(m *ignore.Matcher) map[string]bool {
	out := make(map[string]bool)
	for _, p := range treePaths { // parents come first
		kind := ignore.Other
		if strings.HasSuffix(p, "/") {
			kind = ignore.Dir
		}
		dir, name := "", strings.TrimSuffix(p, "/")
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			dir, name = name[:i], name[i+1:]
		}
		if dir != "" && out[dir+"/"] || m.Match(dir, name, kind) {
			out[p] = true
		}
	}
	return out
}

func TestAgreesWithGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		testkit.Missing(t, "git", "apt-get install git")
	}
	const lists = 400
	r := rand.New(rand.NewPCG(1, 2))
	repo := t.TempDir()
	run(t, repo, nil, "git", "init", "-q")
	patterns := make([][]string, lists)
	var ask bytes.Buffer
	for i := range patterns {
		for range 1 + r.IntN(3) {
			patterns[i] = append(patterns[i], randomPattern(r))
		}
		top := fmt.Sprintf("case%d", i)
		for _, p := range treePaths {
			if strings.HasSuffix(p, "/") {
				if err := os.MkdirAll(filepath.Join(repo, top, p), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			fmt.Fprintf(&ask, "%s/%s\x00", top, strings.TrimSuffix(p, "/"))
		}
		text := strings.Join(patterns[i], "\n") + "\n"
		if err := os.WriteFile(filepath.Join(repo, top, ".gitignore"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := make(map[string]bool)
	for p := range strings.SplitSeq(run(t, repo, &ask, "git", "check-ignore", "--no-index", "-z", "--stdin"), "\x00") {
		git[p] = true
	}
	matched := 0
	for i, list := range patterns {
		ours := leftOut(ignore.New(list))
		for _, p := range treePaths {
			theirs := git[fmt.Sprintf("case%d/%s", i, strings.TrimSuffix(p, "/"))]
			if theirs != ours[p] {
				t.Errorf("patterns %q: %q left out: %v, git says %v", list, p, ours[p], theirs)
			}
			if theirs {
				matched++
			}
		}
	}
	if matched < lists {
		t.Errorf("git left out %d paths; the patterns say too little", matched)
	}
}

func run(t *testing.T, dir string, in *bytes.Buffer, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if in != nil {
		cmd.Stdin = in
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, args, err, stderr.Bytes())
	}
	return string(out)
}

func FuzzMatch(f *testing.F) {
	f.Add("*.o\n!a/**/b", "a/x", "b")
	f.Add("[[:alpha:]-\\]]*\n/d/", "", "d")
	f.Add("**a*b**c*", "aaaa", "bbbb")
	f.Fuzz(func(t *testing.T, patterns, dir, name string) {
		m := ignore.New(ignore.Lines([]byte(patterns)))
		got := m.Match(dir, name, ignore.Dir)
		if again := m.Match(dir, name, ignore.Dir); again != got {
			t.Error("two answers to one question")
		}
		// A literal pattern, escaped byte by byte, matches exactly itself.
		if name == "" || strings.ContainsAny(name, "/\x00\n") {
			return
		}
		escaped := "/\\" + strings.Join(strings.Split(name, ""), "\\")
		if len(name) == len(strings.Split(name, "")) && !ignore.New([]string{escaped}).Match("", name, ignore.Other) {
			t.Errorf("pattern %q does not match %q", escaped, name)
		}
	})
}
