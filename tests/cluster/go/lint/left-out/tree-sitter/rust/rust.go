// Package rust stands for a parser that is left out.
package rust

import sitter "github.com/smacker/go-tree-sitter"

func GetLanguage() *sitter.Language { return nil }
