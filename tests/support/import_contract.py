"""An import-linter contract that lists what may be imported, not what may not."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def _inside(module: str, packages: list[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


class OnlyContract(Contract):
    """``modules`` and all below them import nothing but themselves and what is allowed.

    Options
    -------
    modules : packages or modules with a rule
    excluding : packages or modules below those to which the rule does not apply
    may_import : packages or modules with all below them; the standard library always is allowed
    may_not_import : exceptions from ``may_import``

    Only direct imports are looked at: what the imported module imports is under its own rule.
    """

    type_name: ClassVar[str] = "only"

    modules = fields.ListField(subfield=fields.StringField())
    excluding = fields.ListField(subfield=fields.StringField(), required=False)
    may_import = fields.ListField(subfield=fields.StringField(), required=False)
    may_not_import = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        modules: list[str] = list(self.modules)
        excluding: list[str] = list(self.excluding or [])
        may_import: list[str] = list(self.may_import or [])
        may_not_import: list[str] = list(self.may_not_import or [])
        for name in modules:
            if name not in graph.modules:
                raise ValueError(f"contract '{self.name}': there is no module {name}")
        broken: list[dict[str, Any]] = []
        for importer in sorted(graph.modules):
            if not _inside(importer, modules) or _inside(importer, excluding):
                continue
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                own = _inside(imported, modules) and not _inside(imported, excluding)
                allowed = own or _inside(imported, may_import)
                standard = imported.split(".")[0] in sys.stdlib_module_names
                if (not allowed and not standard) or _inside(imported, may_not_import):
                    broken += graph.get_import_details(importer=importer, imported=imported)
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for item in check.metadata["broken"]:
            place = f"{item['importer']}, line {item['line_number']}"
            output.print_error(f"{place}: may not import {item['imported']}", bold=False)
        output.new_line()
