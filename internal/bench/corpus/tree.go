package corpus

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Limits on the real files that a tree is made of: smaller ones say little, and
// larger ones are data rather than source.
const (
	smallest = 1 << 10
	largest  = 96 << 10
)

// extensions of what people write and keep in version control.
var extensions = map[string]bool{
	".go": true, ".c": true, ".h": true, ".hpp": true, ".cc": true, ".cpp": true, ".s": true, ".S": true,
	".py": true, ".pl": true, ".pm": true, ".rb": true, ".rs": true, ".js": true, ".ts": true, ".css": true,
	".java": true, ".sh": true, ".tcl": true, ".el": true, ".lua": true, ".m4": true, ".proto": true,
	".json": true, ".yaml": true, ".yml": true, ".toml": true, ".xml": true, ".md": true, ".rst": true,
	".txt": true, ".mod": true, ".cmake": true, ".inc": true,
}

// TreeOptions says what tree to make.
type TreeOptions struct {
	Roots []string // where real source files are looked for; one that is not there is passed over
	Files int
	Bytes int64 // about; the real files decide
	Seed  uint64
}

// file is a real source file.
type file struct {
	path string
	rel  string // its place in the tree
	size int64
}

// Tree makes a tree of distinct source files in dir. Three in four are real
// ones, the largest found; the others are neighbouring real files put together
// with some of their words renamed, which compress like source and are equal to
// nothing.
func Tree(ctx context.Context, dir string, o TreeOptions) (Stats, error) {
	found, err := sources(ctx, o.Roots)
	if err != nil {
		return Stats{}, err
	}
	if len(found) == 0 {
		return Stats{}, fmt.Errorf("no source files below %s", strings.Join(o.Roots, ", "))
	}
	real := pick(found, o.Files*3/4, o.Bytes*3/4)
	var st Stats
	for _, f := range real {
		to := filepath.Join(dir, f.rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return st, err
		}
		n, err := copyFile(to, f.path, 0o644)
		if err != nil {
			return st, err
		}
		st.Files++
		st.Bytes += n
	}
	st.Note = fmt.Sprintf("%d real source files (%d MB), the others variants of them with words renamed", st.Files, st.Bytes/1e6)
	return derive(ctx, dir, found, o, st)
}

// derive fills the tree up to the promised number of files and bytes.
func derive(ctx context.Context, dir string, found []file, o TreeOptions, st Stats) (Stats, error) {
	rnd := rand.New(source(o.Seed))
	names, err := wordsOf(found)
	if err != nil {
		return st, err
	}
	for i := 0; st.Files < o.Files; i++ {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		mean := max(smallest, (o.Bytes-st.Bytes)/int64(o.Files-st.Files))
		size := mean/2 + rnd.Int64N(mean)
		start := rnd.IntN(len(found))
		b, err := variant(rnd, names, found, start, size)
		if err != nil {
			return st, err
		}
		sub := filepath.Join(dir, "variants", fmt.Sprintf("p%03d", i%500))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return st, err
		}
		name := fmt.Sprintf("unit%05d%s", i, filepath.Ext(found[start].path))
		if err := os.WriteFile(filepath.Join(sub, name), b, 0o644); err != nil {
			return st, err
		}
		st.Files++
		st.Bytes += int64(len(b))
	}
	return st, nil
}

// word is what a variant may rename.
var word = regexp.MustCompile(`[A-Za-z_]{4,}`)

// wordsOf returns the words of some of the files, each once, in the order in
// which they are found.
func wordsOf(found []file) ([]string, error) {
	var names []string
	seen := make(map[string]bool)
	for i := 0; i < len(found); i += max(1, len(found)/500) {
		b, err := os.ReadFile(found[i].path)
		if err != nil {
			return nil, err
		}
		for _, w := range word.FindAll(b, -1) {
			if !seen[string(w)] {
				seen[string(w)] = true
				names = append(names, string(w))
			}
		}
	}
	return names, nil
}

// variant puts whole files from start on one after the other until there are
// size bytes, and gives one word in three another name, the same one throughout.
func variant(rnd *rand.Rand, names []string, found []file, start int, size int64) ([]byte, error) {
	out := fmt.Appendf(nil, "unit %016x\n", rnd.Uint64())
	renamed := make(map[string]string)
	for i := start; int64(len(out)) < size; i++ {
		b, err := os.ReadFile(found[i%len(found)].path)
		if err != nil {
			return nil, err
		}
		out = append(out, word.ReplaceAllFunc(b, func(w []byte) []byte {
			to, ok := renamed[string(w)]
			if !ok {
				to = string(w)
				if len(names) > 0 && rnd.IntN(3) == 0 {
					to = names[rnd.IntN(len(names))]
				}
				renamed[string(w)] = to
			}
			return []byte(to)
		})...)
	}
	return out[:size], nil
}

// pick takes the largest files until there are count of them or size bytes.
func pick(found []file, count int, size int64) []file {
	bySize := slices.Clone(found)
	slices.SortStableFunc(bySize, func(a, b file) int { return cmp.Compare(b.size, a.size) })
	bySize = bySize[:min(count, len(bySize))]
	var sum int64
	for _, f := range bySize {
		sum += f.size
	}
	for len(bySize) > 0 && sum > size { // too much: leave out the largest
		sum -= bySize[0].size
		bySize = bySize[1:]
	}
	slices.SortFunc(bySize, func(a, b file) int { return strings.Compare(a.rel, b.rel) })
	return bySize
}

// sources returns the distinct source files below roots, in the order of their
// place in the tree. A file that cannot be read is passed over.
func sources(ctx context.Context, roots []string) ([]file, error) {
	var found []file
	seen := make(map[[sha256.Size]byte]bool)
	for i, root := range roots {
		base, err := filepath.EvalSymlinks(root)
		if err != nil {
			continue
		}
		err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !extensions[filepath.Ext(path)] {
				return ctx.Err()
			}
			info, err := d.Info()
			if err != nil || info.Size() < smallest || info.Size() > largest {
				return ctx.Err()
			}
			b, err := os.ReadFile(path)
			if err != nil || bytes.IndexByte(b, 0) >= 0 {
				return ctx.Err()
			}
			if sum := sha256.Sum256(b); !seen[sum] {
				seen[sum] = true
				rel, err := filepath.Rel(base, path)
				if err != nil {
					return err
				}
				found = append(found, file{path: path, rel: filepath.Join(fmt.Sprintf("r%d", i), rel), size: int64(len(b))})
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
