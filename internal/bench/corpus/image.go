package corpus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ImageOptions says what disk image to make.
type ImageOptions struct {
	Roots []string // where programs are looked for; one that is not there is passed over
	Size  int64    // of the disk
	Bytes int64    // of programs on it; less if the machine has less
}

// Image makes a sparse file at path with an ext4 file system (mke2fs) that holds
// copies of the programs and libraries below the roots. It needs Bytes of space
// beside path while it works.
func Image(ctx context.Context, path string, o ImageOptions) (Stats, error) {
	stage := path + ".stage"
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return Stats{}, err
	}
	defer os.RemoveAll(stage)
	st, err := copyPrograms(ctx, stage, o)
	if err != nil {
		return st, err
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return st, err
	}
	if err := os.Truncate(path, o.Size); err != nil {
		return st, err
	}
	mke2fs := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-F", "-d", stage,
		"-U", "3d1f7a62-0c5e-4c1b-9f0e-5a1d2f3c4b5a", "-E", "hash_seed=7c9e6679-7425-40de-944b-e07fc1f90ae7,nodiscard", path)
	mke2fs.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := mke2fs.CombinedOutput(); err != nil {
		return st, fmt.Errorf("mke2fs: %w: %s", err, strings.TrimSpace(string(out)))
	}
	st.Note = fmt.Sprintf("%.1f GB of programs in %d files on a disk of %d GiB", float64(st.Bytes)/1e9, st.Files, o.Size>>30)
	return st, nil
}

// copyPrograms copies the regular files below the roots, in order, until there
// are enough bytes. One that cannot be read is passed over.
func copyPrograms(ctx context.Context, stage string, o ImageOptions) (Stats, error) {
	var st Stats
	for i, root := range o.Roots {
		base, err := filepath.EvalSymlinks(root)
		if err != nil {
			continue
		}
		err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if st.Bytes >= o.Bytes {
				return fs.SkipAll
			}
			to := filepath.Join(stage, fmt.Sprintf("r%d", i), strings.TrimPrefix(path, base))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			n, err := copyFile(to, path, 0o755)
			if errors.Is(err, fs.ErrPermission) {
				return nil
			}
			st.Files++
			st.Bytes += n
			return err
		})
		if err != nil {
			return st, err
		}
	}
	return st, nil
}
