package fault_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// engine is what makes the errors that reach an operator.
var engine = [...]string{"kek", "store", "crypt", "chunk", "catalog", "catalog/tree", "restore", "backup/source", "restore/target"}

// TestTableIsWhole: every kind of error of the engine is in the table, or there is a reason
// why no operator is told a next step of it.
func TestTableIsWhole(t *testing.T) {
	untold := map[string]string{
		"store.ErrExist":       "who puts a name once more takes what is there, or says it by a catalog.ErrVaultExists",
		"store.ErrLocked":      "a prune counts what is under retention, and takes it when that has ended",
		"catalog.ErrMisplaced": "it is a crypt.ErrDamaged too",
		"source.ErrVanished":   "the entry is passed over",
		"source.ErrSkipped":    "the entry is passed over",
		"target.ErrName":       "the entry is skipped, and the restore says so",
		"target.ErrPrivilege":  "the entry is skipped, and the restore says so; its text has the next step",
		"target.ErrInTheWay":   "the entry is skipped, and the restore says so",
	}
	told := make(map[string]bool)
	for _, spec := range values(t, ".") {
		if spec.Names[0].Name == "faults" {
			for _, row := range spec.Values[0].(*ast.CompositeLit).Elts {
				if is, ok := row.(*ast.CompositeLit).Elts[0].(*ast.SelectorExpr); ok {
					told[is.X.(*ast.Ident).Name+"."+is.Sel.Name] = true
				}
			}
		}
	}
	met := 0
	for _, folder := range engine {
		for _, spec := range values(t, filepath.Join("../..", folder)) {
			for _, ident := range spec.Names {
				name := path.Base(folder) + "." + ident.Name
				if !strings.HasPrefix(ident.Name, "Err") {
					continue
				}
				met++
				if reason := untold[name]; told[name] == (reason != "") {
					t.Errorf("%s: in the table %v, left out because %q", name, told[name], reason)
				}
				delete(untold, name)
			}
		}
	}
	for name := range untold {
		t.Errorf("there is no %s", name)
	}
	if met < 40 {
		t.Errorf("only %d errors were found", met)
	}
}

// values are the variables of a package.
func values(t *testing.T, folder string) (specs []*ast.ValueSpec) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if group, ok := d.(*ast.GenDecl); ok && group.Tok == token.VAR {
				for _, spec := range group.Specs {
					specs = append(specs, spec.(*ast.ValueSpec))
				}
			}
		}
	}
	return specs
}
