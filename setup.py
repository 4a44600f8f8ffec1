"""What pyproject.toml can't say: the lessons' wrong answers are for the tests, and are not installed. All else stands there."""

from setuptools import setup
from setuptools.command.build_py import build_py


class WithoutWrongAnswers(build_py):
    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[1] != "wrong_answers"]


setup(cmdclass={"build_py": WithoutWrongAnswers})
